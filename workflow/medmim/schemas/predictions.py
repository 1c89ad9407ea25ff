"""Replies of one model under one condition."""

from medmim.column import REALS, TEXT, Column

COLUMNS = (
    Column("qa_id", TEXT, "as in qa"),
    Column("model", TEXT, "name of the model in the config"),
    Column("condition", TEXT, "plain, or blind: no image"),
    Column("prompt_sha256", TEXT, "hash of the exact prompt text"),
    Column("reply", TEXT, "decoded reply without special tokens"),
    Column("option_logprobs", REALS, "log-likelihood of each option's letter, nats; empty if open"),
)

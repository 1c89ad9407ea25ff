"""Replies of one model under one condition."""

from medmim.tables.columns import INT, REALS, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("qa_id", TEXT, "as in qa"),
    Column("model", TEXT, "name of the model in the config"),
    Column("condition", TEXT, "plain, rotated, blind, other_patient or reordered: see medmim.questions.conditions"),
    Column("rotation", INT, "places by which the options were moved: 1 to options - 1 under rotated, else 0"),
    Column("prompt_sha256", TEXT, "hash of the exact prompt text"),
    Column("reply", TEXT, "decoded reply without special tokens"),
    Column("option_logprobs", REALS, "log-likelihood of each option's letter, as shown, nats; empty if open or not given"),
    Column("text_logprobs", REALS, "log-likelihood of each option's line, as shown, nats a token; empty if open or not wanted"),
    Column("failure", TEXT, "why the model could not be asked, such as a prompt longer than its positions; empty where it was"),
)

"""Scored items."""

from medmim.column import REAL, TEXT, Column

COLUMNS = (
    Column("qa_id", TEXT, "as in qa"),
    Column("model", TEXT, "model, or the baseline chance or majority"),
    Column("condition", TEXT, "as in predictions"),
    Column("set", TEXT, "as in qa"),
    Column("ability", TEXT, "as in qa"),
    Column("kind", TEXT, "closed or open"),
    Column("cluster", TEXT, "the question's patients joined by '+'"),
    Column("metric", TEXT, "accuracy, loglikelihood_accuracy, exact_match, token_recall, token_f1, bleu, rouge_l ..."),
    Column("value", REAL, "score of this item, 0 to 1"),
    Column("status", TEXT, "how the reply was read: ok, ambiguous, unparsed, refused; empty where nothing is read"),
    Column("read", TEXT, "the letter read, or empty"),
)

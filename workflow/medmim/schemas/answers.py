"""Scored items."""

from medmim.tables.columns import INT, REAL, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("qa_id", TEXT, "as in qa"),
    Column("model", TEXT, "as in predictions"),
    Column("condition", TEXT, "as in predictions"),
    Column("rotation", INT, "as in predictions; 0 for what is scored over all of a question's rotations"),
    Column("set", TEXT, "as in qa"),
    Column("ability", TEXT, "as in qa"),
    Column("kind", TEXT, "closed or open"),
    Column("cluster", TEXT, "the question's patients joined by '+'"),
    Column("metric", TEXT, "name of the metric; what scores replies names them all here"),
    Column("value", REAL, "score of this item, 0 to 1"),
    Column(
        "status",
        TEXT,
        "how the reply was read: ok, ambiguous, unparsed, refused; not_asked where the model could not be; empty where nothing is"
        " read",
    ),
    Column("read", TEXT, "the letter read or found likeliest, as shown; empty where none"),
    Column("option", INT, "place of that option among the question's own, from 0; null where none", True),
)

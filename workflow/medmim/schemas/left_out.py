"""What a source's tables name and its adapter leaves out on purpose."""

from medmim.tables.columns import INT, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("source", TEXT, "name of the source"),
    Column("reason", TEXT, "what is left out, and why, for a person"),
    Column("count", INT, "how many"),
)

"""What could not be used."""

from medmim.tables.columns import TEXT, Column

VERSION = 1
COLUMNS = (
    Column("stage", TEXT, "stage that turned it away"),
    Column("item", TEXT, "file, or file and row, or record"),
    Column("reason", TEXT, "why, for a person"),
)

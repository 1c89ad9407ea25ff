"""What a run depends on of a folder of the user's: a change there makes its index anew, and no other does."""

from medmim.tables.columns import TEXT, Column

VERSION = 1
COLUMNS = (
    Column("path", TEXT, "path below the indexed folder, with /, where a file or folder is or is looked for; or a glob pattern"),
    Column("kind", TEXT, "file, folder or absent: what was there; or pattern, which stands for the names that it matches"),
)

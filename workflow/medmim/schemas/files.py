"""The files of a folder, hashed."""

from medmim.tables.columns import INT, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("path", TEXT, "path below the indexed folder, with /"),
    Column("bytes", INT, "size in bytes"),
    Column("sha256", TEXT, "hex sha256 of the bytes"),
)

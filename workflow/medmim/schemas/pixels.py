"""Preprocessed images of one model."""

from medmim.tables.columns import BYTES, INT, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("image_id", TEXT, "image_id as in qa"),
    Column("height", INT, "pixels after preprocessing"),
    Column("width", INT, "pixels after preprocessing"),
    Column("pixels", BYTES, "uint8, height x width x 3, row by row, before rescaling and normalisation"),
)

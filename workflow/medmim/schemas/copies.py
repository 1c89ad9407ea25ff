"""Images of the benchmark that are copies of images of training: a row is one pair."""

from medmim.tables.columns import REAL, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("image", TEXT, "image that a benchmark question shows, as its question names it"),
    Column("source", TEXT, "source of that question"),
    Column("training_image", TEXT, "image that a training question shows, as its question names it"),
    Column("training_source", TEXT, "source of that question"),
    Column("relation", TEXT, "exact (the same pixels, perhaps under two names) or near"),
    Column("correlation", REAL, "of the detail of both pictures, aligned; 1 where they are exact"),
)

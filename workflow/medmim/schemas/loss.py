"""History of a training."""

from medmim.tables.columns import INT, REAL, TEXT, Column

VERSION = 1
COLUMNS = (
    Column("stage", TEXT, "vision, language or tune"),
    Column("step", INT, "optimizer steps so far"),
    Column("loss", REAL, "mean training loss since the last row, nats a label token"),
    Column("learning_rate", REAL, "of the first parameter group"),
    Column("tokens", INT, "real tokens seen so far, images expanded, padding not counted"),
)

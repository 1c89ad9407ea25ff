"""Training samples of one model."""

from medmim.tables.columns import INT, INTS, TEXT, TEXTS, Column

VERSION = 1
COLUMNS = (
    Column("qa_id", TEXT, "as in qa"),
    Column("input_ids", INTS, "token ids, one image token per image, not expanded"),
    Column("labels", INTS, "token id where the loss is taken, -100 elsewhere; as long as input_ids"),
    Column("image_ids", TEXTS, "pixels rows in order of the image tokens"),
    Column("length", INT, "tokens after expansion of the image tokens"),
)

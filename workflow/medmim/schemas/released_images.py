"""Images that the authors' release names."""

from medmim.tables.columns import TEXT, Column

VERSION = 1
COLUMNS = (
    Column("path", TEXT, "path by which the release names the image"),
    Column("source", TEXT, "name of the source, as in the config"),
    Column(
        "image_id", TEXT, "id of its row in the images table, which may be of another file with the same pixels; empty if none"
    ),
    Column("patient_id", TEXT, "patient of the image, '<source>/<the owner's patient id>'; empty without image_id"),
    Column("reason", TEXT, "why it can't be shown, for a person; empty with image_id"),
)

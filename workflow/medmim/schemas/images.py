"""Normalised images."""

from medmim.tables.columns import BYTES, INT, TEXT, Column

VERSION = 2
COLUMNS = (
    Column("image_id", TEXT, "hex sha256 of mode, width, height and the normalised pixels"),
    Column("source", TEXT, "name of the source, as in the config"),
    Column("patient_id", TEXT, "'<source>/<the owner's patient id>'"),
    Column("study_id", TEXT, "'<source>/<the owner's study or visit id>'"),
    Column("day", INT, "days since the patient's first study; null where the owner gives no time", True),
    Column("view", TEXT, "projection or sequence: CC, MLO, PA, AP, T1, CT1, T2, FLAIR, fundus; empty if unknown"),
    Column("laterality", TEXT, "L, R or empty"),
    Column("modality", TEXT, "mammography, MRI, radiography, CT, fundus, microscopy ... in lower case except MRI and CT"),
    Column("width", INT, "pixels"),
    Column("height", INT, "pixels"),
    Column("bytes", BYTES, "PNG of the normalised pixels: 8 bits, grey or RGB"),
    Column(
        "thumbnail",
        BYTES,
        "64 x 64 grey values, row by row, by which near copies are found (medmim.questions.near_copies)",
    ),
    Column("release_path", TEXT, "path under which the authors' release names this image; empty if it does not"),
    Column("origin_file", TEXT, "path of the file below the source's folder; '<tar>!<member>' inside an archive"),
    Column("origin_sha256", TEXT, "hex sha256 of that file"),
)

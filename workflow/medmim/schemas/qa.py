"""Questions."""

from medmim.tables.columns import INT, TEXT, TEXTS, Column

VERSION = 1
COLUMNS = (
    Column("qa_id", TEXT, "16 hex digits: hash of question, options, answer and image_ids"),
    Column("split", TEXT, "train, benchmark, or pretrain (single-image and text-only, for the demo's base models)"),
    Column(
        "ability",
        TEXT,
        "temporal, reasoning, comparison, coreference, composed; single or text for pretrain; a further held-out set's name",
    ),
    Column("set", TEXT, "the ability; rad, odir, or the name of a further one for the held-out sets"),
    Column("kind", TEXT, "closed (with options) or open"),
    Column("task", TEXT, "how it was made, e.g. embed_typeA, ms_cxr_t_vqa_edema; the release's source field for released"),
    Column("question", TEXT, "text with one <image> per image, all in front; options not included"),
    Column("options", TEXTS, "option texts in order of letters A, B, ...; empty if open"),
    Column("answer", TEXT, "gold text; for closed the gold option's text"),
    Column("answer_index", INT, "index of the gold in options; null if open", True),
    Column(
        "image_ids",
        TEXTS,
        "images in order: image_id; 'release/<path>' before the release's images are looked up",
    ),
    Column(
        "patient_ids", TEXTS, "distinct patients of the images, sorted; in further held-out sets what their adapters take for one"
    ),
    Column("source", TEXT, "name of the source"),
    Column("generator", TEXT, "what made it, with its version: e.g. templates/1, released/c1cdc25"),
    Column("findings", TEXTS, "finding_ids it rests on"),
)

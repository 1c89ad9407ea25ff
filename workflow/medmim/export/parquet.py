"""Questions with their images inside, as Parquet that `datasets` opens without being told what the columns are.

A file's metadata has the data-use policy, as our tables' have.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medmim.common.files import write_atomically
from medmim.export.questions import QuestionRow, Questions
from medmim.tables.data_policy import DataPolicy

COLUMNS = {
    "qa_id": ("string", "hash of question, options, answer and images"),
    "set": ("string", "the set that it belongs to"),
    "ability": ("string", "what it asks for"),
    "kind": ("string", "closed (with options) or open"),
    "task": ("string", "how the question was made"),
    "question": ("string", "text with one `<image>` per image, all in front; options not included"),
    "options": (["string"], "option texts in order of the letters A, B, ...; empty if open"),
    "answer": ("string", "gold text"),
    "answer_index": ("int64", "index of the gold in options; null if open"),
    "images": (["image"], "in order"),
    "image_ids": (["string"], "sha256 of each image's mode, size and pixels, or its name in the authors' release"),
    "patient_ids": (["string"], "whom the images show: questions that share one are not independent"),
    "source": ("string", "where the images are from"),
    "generator": ("string", "what made the question, with its version"),
}
"""Type and meaning by name; a list stands for several."""
ROWS_PER_GROUP = 64
"""Questions in a row group: with their images, tens of megabytes at most."""


def _build_arrow_type(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        return pa.list_(_build_arrow_type(kind[0]))
    return pa.struct({"bytes": pa.binary(), "path": pa.string()}) if kind == "image" else pa.type_for_alias(kind)


def _build_feature(kind: Any) -> dict[str, Any]:
    if isinstance(kind, list):
        return {
            "feature": _build_feature(kind[0]),
            "_type": "Sequence",
        }  # a List for datasets 4 and later; the name older ones know
    return {"_type": "Image"} if kind == "image" else {"dtype": kind, "_type": "Value"}


def select_columns(with_images: bool) -> dict[str, tuple[Any, str]]:
    """COLUMNS, with the images or without."""
    return {name: description for name, description in COLUMNS.items() if with_images or name != "images"}


def build_schema(with_images: bool, rules: DataPolicy) -> pa.Schema:
    """Arrow schema, with the types of `datasets` in its metadata."""
    kinds = {name: kind for name, (kind, _) in select_columns(with_images).items()}
    features = {name: _build_feature(kind) for name, kind in kinds.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), **rules.to_metadata()}
    return pa.schema([pa.field(name, _build_arrow_type(kind)) for name, kind in kinds.items()], metadata=metadata)


def write_questions(path: Path, questions: Questions, rows: Sequence[QuestionRow]) -> int:
    """Write questions with their images; whole or not at all. Returns their bytes in memory."""
    n_bytes, remaining_rows = 0, iter(rows)
    arrow_schema = build_schema(questions.with_images, questions.rules)
    with (
        write_atomically(path) as temporary,
        pq.ParquetWriter(temporary, arrow_schema, compression="zstd", use_dictionary=False) as writer,
    ):
        while chunk := list(islice(remaining_rows, ROWS_PER_GROUP)):
            if questions.with_images:
                chunk = [
                    row | {"images": [{"bytes": png, "path": name} for name, png in questions.load_images(row)]} for row in chunk
                ]
            table = pa.Table.from_pylist(chunk, arrow_schema)
            writer.write_table(table)
            n_bytes += table.nbytes
    return n_bytes

"""Questions with their images inside, as Parquet that `datasets` opens without being told what the columns are."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medmim.export.benchmark import Benchmark, Row
from medmim.files import whole

COLUMNS = {
    "qa_id": ("string", "hash of question, options, answer and images"),
    "set": ("string", "the benchmark's set"),
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
ROWS = 64
"""Questions in a row group: with their images, tens of megabytes at most."""


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        return pa.list_(_arrow(kind[0]))
    return pa.struct({"bytes": pa.binary(), "path": pa.string()}) if kind == "image" else pa.type_for_alias(kind)


def _feature(kind: Any) -> dict[str, Any]:
    if isinstance(kind, list):
        return {"feature": _feature(kind[0]), "_type": "Sequence"}  # a List for datasets 4 and later; the name older ones know
    return {"_type": "Image"} if kind == "image" else {"dtype": kind, "_type": "Value"}


def schema() -> pa.Schema:
    """Arrow schema, with the types of `datasets` in its metadata."""
    features = {name: _feature(kind) for name, (kind, _) in COLUMNS.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([pa.field(name, _arrow(kind)) for name, (kind, _) in COLUMNS.items()], metadata=metadata)


def write(path: Path, benchmark: Benchmark, rows: Sequence[Row]) -> int:
    """Write questions with their images; whole or not at all. Returns their bytes in memory."""
    total, left = 0, iter(rows)
    with whole(path) as temporary, pq.ParquetWriter(temporary, schema(), compression="zstd", use_dictionary=False) as writer:
        while part := list(islice(left, ROWS)):
            shown = [[{"bytes": png, "path": name} for name, png in benchmark.images(row)] for row in part]
            table = pa.Table.from_pylist([row | {"images": i} for row, i in zip(part, shown, strict=True)], schema())
            writer.write_table(table)
            total += table.nbytes
    return total

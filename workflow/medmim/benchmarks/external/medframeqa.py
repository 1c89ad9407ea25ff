"""MedFrameQA (Yu et al. 2025, arXiv 2505.16964): questions about two to five frames of a medical education video. CC BY 4.0.

Published as huggingface.co/datasets/SuhaoYu1020/MedFrameQA (commit 96083ae9405b2fdb687005c65902f2ee3d7c9f12): Parquet files in
data/, one split of 2,851 questions. Columns, as its card and its readers (such as alibaba-damo-academy/MedEvalKit) have them:
question_id, system, organ, keyword, modality, video_id, question, options (a list of texts), image_url (names that the frames
once had), correct_answer (a letter), reasoning_chain, and image_1 to image_5, each {bytes, path}, null where there are fewer.

Of whom a frame is, nobody says: a video counts as one patient. The task is the modality.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medmim.benchmarks.external.base import Case, ExternalSet, letter_index
from medmim.common.errors import UserError
from medmim.common.files import INDEX_NAME
from medmim.sources.base import Rejection

TEXT_COLUMNS = ("question_id", "video_id", "modality", "question", "correct_answer")
IMAGE_COLUMN = re.compile(r"image_\d+")
ROWS_PER_BATCH = 32  # rows held at a time
MODALITY_NAMES = {"x-ray": "radiography", "mri": "MRI", "ct": "CT"}


def _select_columns(path: Path) -> list[str]:
    """The columns to read of a file, those of images last and in order. Raises UserError for another layout."""
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file: {error}") from error
    images = [f"image_{number}" for number in range(1, 1 + max(2, sum(bool(IMAGE_COLUMN.fullmatch(n)) for n in schema.names)))]
    missing_columns = [f"{n} (a text)" for n in TEXT_COLUMNS if n not in schema.names or not _is_text(schema.field(n).type)]
    if "options" not in schema.names or not _is_list(schema.field("options").type):
        missing_columns.append("options (a list of texts)")
    missing_columns += [f"{n} (with its bytes)" for n in images if n not in schema.names or not _is_image(schema.field(n).type)]
    if missing_columns:
        present_columns = ", ".join(f"{f.name} ({f.type})" for f in schema)
        raise UserError(f"{path}: not MedFrameQA as published: needs {', '.join(missing_columns)}; there are {present_columns}")
    return [*TEXT_COLUMNS, "options", *images]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_image(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _is_list(kind: pa.DataType) -> bool:
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type))


def read_cases(root: Path) -> Iterator[Case | Rejection]:
    """The questions of a folder, file by file. Raises UserError for another layout."""
    paths = sorted(root.glob("data/*.parquet")) or sorted(p for p in root.glob("*.parquet") if p.name != INDEX_NAME)
    if not paths:
        raise UserError(f"{root}: no data/*.parquet here; expected the folder as SuhaoYu1020/MedFrameQA publishes it")
    first_items: dict[str, str] = {}
    for path in paths:
        columns, name, row = _select_columns(path), path.relative_to(root).as_posix(), 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=columns):
                for record in batch.to_pylist():
                    item = f"row {row}"
                    row += 1
                    try:
                        case = _parse_case(name, item, record, columns[len(TEXT_COLUMNS) + 1 :])
                        if (first_item := first_items.setdefault(case.id, f"{name} {item}")) != f"{name} {item}":
                            raise ValueError(f"question_id {case.id} is that of {first_item}")
                    except ValueError as error:
                        yield Rejection(f"{name} {item}", str(error))
                        continue
                    yield case


def _parse_case(file: str, item: str, record: dict[str, Any], images: list[str]) -> Case:
    options, modality = tuple(record["options"] or ()), (record["modality"] or "").strip()
    if empty := [n for n in TEXT_COLUMNS if n != "modality" and not record[n]]:
        raise ValueError(f"{', '.join(empty)} is empty")
    if None in options:
        raise ValueError("an option is empty")
    return Case(
        file=file,
        item=item,
        id=record["question_id"],
        question=record["question"],
        options=options,
        gold=letter_index(record["correct_answer"].strip(), len(options)),
        images=tuple((f"{file}!{record['question_id']}/{n}", _make_loader(record[n])) for n in images if record[n] is not None),
        patient=record["video_id"],
        task=modality,
        modality=MODALITY_NAMES.get(modality.lower(), modality.lower()),
    )


def _make_loader(image: dict[str, Any]) -> Any:
    def load_bytes() -> bytes:
        if not image["bytes"]:
            raise ValueError("the Parquet file holds no bytes of it")
        return bytes(image["bytes"])

    return load_bytes


EXTERNAL_SET = ExternalSet(
    label="MedFrameQA",
    repository="SuhaoYu1020/MedFrameQA",
    files=("*.parquet",),
    licence="CC BY 4.0",
    published="2,851 questions",
    read_cases=read_cases,
)

"""Every table that passes between stages: its columns, their meaning and unit, checked on write and on read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medmim.files import whole

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
INT = pa.int64()
INTS = pa.list_(pa.int32())
REAL = pa.float64()
BYTES = pa.binary()


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type, meaning, and whether it may be null."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


FILES = (
    Column("path", TEXT, "path below the indexed folder, with /"),
    Column("bytes", INT, "size in bytes"),
    Column("sha256", TEXT, "hex sha256 of the bytes"),
)
IMAGES = (
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
    Column("release_path", TEXT, "path under which the authors' release names this image; empty if it does not"),
    Column("origin_file", TEXT, "path of the file below the source's folder; '<tar>!<member>' inside an archive"),
    Column("origin_sha256", TEXT, "hex sha256 of that file"),
)
FINDINGS = (
    Column("finding_id", TEXT, "'<source>/<16 hex digits of the content>'"),
    Column("source", TEXT, "name of the source"),
    Column("patient_id", TEXT, "as in images"),
    Column("study_id", TEXT, "as in images; empty for a fact of the patient"),
    Column("image_id", TEXT, "as in images; empty for a fact of the study or patient"),
    Column("name", TEXT, "what is stated; the names of each source stand in its adapter"),
    Column("value", TEXT, "the statement, as the source words it"),
    Column("origin_file", TEXT, "table or file below the source's folder that states it"),
    Column("origin_row", INT, "row in that table counted from 1 without its header; record number in a JSON file"),
)
REJECTED = (
    Column("stage", TEXT, "stage that turned it away"),
    Column("item", TEXT, "file, or file and row, or record"),
    Column("reason", TEXT, "why, for a person"),
)
QA = (
    Column("qa_id", TEXT, "16 hex digits: hash of question, options, answer and image_ids"),
    Column("split", TEXT, "train, benchmark, or pretrain (single-image and text-only, for the demo's base models)"),
    Column("ability", TEXT, "temporal, reasoning, comparison, coreference, composed; single or text for pretrain"),
    Column("set", TEXT, "the ability, or rad or odir for the held-out sets"),
    Column("kind", TEXT, "closed (with options) or open"),
    Column("task", TEXT, "how it was made, e.g. embed_typeA, ms_cxr_t_vqa_edema; the release's source field for released"),
    Column("question", TEXT, "text with one <image> per image, all in front; options not included"),
    Column("options", TEXTS, "option texts in order of letters A, B, ...; empty if open"),
    Column("answer", TEXT, "gold text; for closed the gold option's text"),
    Column("answer_index", INT, "index of the gold in options; null if open", True),
    Column("image_ids", TEXTS, "images in order: image_id, or 'release/<release_path>' for released questions"),
    Column("patient_ids", TEXTS, "distinct patients of the images, sorted"),
    Column("source", TEXT, "name of the source"),
    Column("generator", TEXT, "what made it, with its version: e.g. templates/1, released/c1cdc25"),
    Column("findings", TEXTS, "finding_ids it rests on"),
)
SAMPLES = (
    Column("qa_id", TEXT, "as in qa"),
    Column("input_ids", INTS, "token ids, one image token per image, not expanded"),
    Column("labels", INTS, "token id where the loss is taken, -100 elsewhere; as long as input_ids"),
    Column("image_ids", TEXTS, "pixels rows in order of the image tokens"),
    Column("length", INT, "tokens after expansion of the image tokens"),
)
PIXELS = (
    Column("image_id", TEXT, "image_id as in qa"),
    Column("height", INT, "pixels after preprocessing"),
    Column("width", INT, "pixels after preprocessing"),
    Column("pixels", BYTES, "uint8, height x width x 3, row by row, before rescaling and normalisation"),
)
LOSS = (
    Column("stage", TEXT, "vision, language or tune"),
    Column("step", INT, "optimizer steps so far"),
    Column("loss", REAL, "mean training loss since the last row, nats a label token"),
    Column("learning_rate", REAL, "of the first parameter group"),
    Column("tokens", INT, "real tokens seen so far, images expanded, padding not counted"),
)
PREDICTIONS = (
    Column("qa_id", TEXT, "as in qa"),
    Column("model", TEXT, "name of the model in the config"),
    Column("condition", TEXT, "plain, or blind: no image"),
    Column("prompt_sha256", TEXT, "hash of the exact prompt text"),
    Column("reply", TEXT, "decoded reply without special tokens"),
    Column("option_logprobs", pa.list_(REAL), "log-likelihood of each option's letter, nats; empty if open"),
)
ANSWERS = (
    Column("qa_id", TEXT, "as in qa"),
    Column("model", TEXT, "model, or the baseline chance or majority"),
    Column("condition", TEXT, "as in predictions"),
    Column("set", TEXT, "as in qa"),
    Column("ability", TEXT, "as in qa"),
    Column("kind", TEXT, "closed or open"),
    Column("cluster", TEXT, "the question's patients joined by '+'"),
    Column("metric", TEXT, "accuracy, loglikelihood_accuracy, exact_match, token_recall, token_f1, bleu, rouge_l ..."),
    Column("value", REAL, "score of this item, 0 to 1"),
    Column("status", TEXT, "how the reply was read: ok, ambiguous, unparsed, refused; empty where nothing is read"),
    Column("read", TEXT, "the letter read, or empty"),
)
LEADERBOARD = (
    Column("model", TEXT, "name in the config, or chance, majority"),
    Column("set", TEXT, "temporal, reasoning, comparison, coreference, rad, odir, or the sums held_in, held_out"),
    Column("ability", TEXT, "ability of the set; held_out or held_in for sums and held-out sets"),
    Column("kind", TEXT, "closed or open"),
    Column("condition", TEXT, "plain or blind"),
    Column("metric", TEXT, "as in answers; *_minus_base, *_minus_blind: paired differences; unparsed_rate, refused_rate ..."),
    Column("value", REAL, "mean over items, 0 to 1 (differences -1 to 1)"),
    Column("ci_low", REAL, "2.5 % point of the bootstrap over patients; null where it has no meaning", True),
    Column("ci_high", REAL, "97.5 % point", True),
    Column("n", INT, "items"),
    Column("n_patients", INT, "distinct patients of the questions"),
)
SCHEMAS: dict[str, tuple[Column, ...]] = {
    "files": FILES,
    "images": IMAGES,
    "findings": FINDINGS,
    "rejected": REJECTED,
    "qa": QA,
    "samples": SAMPLES,
    "pixels": PIXELS,
    "loss": LOSS,
    "predictions": PREDICTIONS,
    "answers": ANSWERS,
    "leaderboard": LEADERBOARD,
}


class TableError(ValueError):
    """A table that does not have the columns its schema declares."""


def schema(name: str) -> pa.Schema:
    """Arrow schema of the named table, meanings kept as field metadata."""
    return pa.schema(
        [pa.field(c.name, c.type, c.nullable, metadata={"meaning": c.meaning}) for c in SCHEMAS[name]], metadata={"table": name}
    )


def _check(table: pa.Table, name: str, where: object) -> None:
    wanted = schema(name)
    missing = [n for n in wanted.names if n not in table.column_names]
    extra = [n for n in table.column_names if n not in wanted.names]
    if missing or extra:
        raise TableError(f"{where}: not a {name} table: missing columns {missing}, unknown columns {extra}")
    for field in wanted:
        column = table.column(field.name)
        if column.type != field.type:
            raise TableError(f"{where}: column {field.name} of {name} is {column.type}, expected {field.type}")
        if not field.nullable and column.null_count:
            row = column.is_null().index(True).as_py()
            raise TableError(f"{where}: column {field.name} of {name} is null in row {row} (of {column.null_count})")


def build(name: str, rows: "Rows") -> pa.Table:
    """Arrow table of the named schema from rows or a frame; TableError names column and row of what does not fit."""
    wanted = schema(name)
    if isinstance(rows, pd.DataFrame):
        records: Iterable[Mapping[Any, Any]] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    else:
        records = rows
    columns: dict[str, list[Any]] = {c: [] for c in wanted.names}
    for number, row in enumerate(records):
        if row.keys() != columns.keys():
            missing, extra = sorted(columns.keys() - row.keys()), sorted(row.keys() - columns.keys())
            raise TableError(f"{name}, row {number}: missing columns {missing}, unknown columns {extra}")
        for key, values in columns.items():
            values.append(row[key])
    arrays = []
    for field in wanted:
        try:
            arrays.append(pa.array(columns[field.name], field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TableError(f"{name}: column {field.name} (expected {field.type}): {error}") from error
    table = pa.Table.from_arrays(arrays, schema=wanted)
    _check(table, name, "new table")
    return table


Rows = Iterable[Mapping[str, Any]] | pd.DataFrame


def write(path: Path | str, name: str, rows: Rows | pa.Table, *, row_group: int = 4096) -> int:
    """Check rows against the named schema and write them to a Parquet file, whole or not at all.

    The same rows give the same bytes. Returns the number of rows. Raises TableError.
    """
    table = rows if isinstance(rows, pa.Table) else build(name, rows)
    _check(table, name, path)
    table = table.select(schema(name).names).replace_schema_metadata({"table": name})
    with whole(Path(path)) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group)
    return table.num_rows


def write_parts(path: Path | str, name: str, parts: Iterable[Rows], *, row_group: int = 4096) -> int:
    """`write` for more rows than memory holds: each part is checked and written before the next is asked for."""
    total = 0
    with (
        whole(Path(path)) as temporary,
        pq.ParquetWriter(temporary, schema(name), compression="zstd") as writer,
    ):
        for part in parts:
            table = build(name, part)
            writer.write_table(table, row_group_size=row_group)
            total += table.num_rows
    return total


def read(path: Path | str, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, memory-mapped, and check it against the named schema; `columns` for a part.

    Raises TableError naming the file and what is wrong with it.
    """
    try:
        found = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise TableError(f"{path}: not a Parquet file: {error}") from error
    _check(found.empty_table(), name, path)
    table = pq.read_table(path, columns=columns, memory_map=True)
    if columns is None:
        _check(table, name, path)
    return table


def frame(path: Path | str, name: str, columns: list[str] | None = None) -> pd.DataFrame:
    """`read` as a pandas frame."""
    return read(path, name, columns).to_pandas()

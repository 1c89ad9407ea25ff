"""What the adapters share in reading the owners' tables and folders: everything is text, every fault has its place."""

import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from medmim.common.errors import UserError


def find_one(root: Path, *patterns: str) -> Path:
    """The file or folder below `root` that the first matching glob pattern names. Raises UserError for none or several."""
    for pattern in patterns:
        matches = sorted(root.glob(pattern))
        if len(matches) > 1:
            raise UserError(f"{root}: {len(matches)} places match {pattern}, expected one: {', '.join(p.name for p in matches)}")
        if matches:
            return matches[0]
    raise UserError(f"{root}: no {' or '.join(patterns)} here; expected the folder in its owner's layout")


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of a CSV or xlsx table as stripped text, empty where a cell is, with `columns` and `optional` under those names.

    A name that ends in "…" stands for the one column that starts with what precedes it. Absent optional columns are "".
    Raises UserError naming the file, the missing columns and those there are.
    """
    column_names = (*columns, *optional)
    header: list[str] = []

    def is_column(column: object, name: str) -> bool:
        text = str(column).strip()
        return text == name or (name.endswith("…") and text.startswith(name[:-1]))

    def is_used_column(column: object) -> bool:  # wide tables are read in part; the whole header is kept for the message below
        header.append(str(column))
        return any(is_column(column, n) for n in column_names)

    try:
        if path.suffix == ".xlsx":
            frame = pd.read_excel(path, dtype=str, keep_default_na=False, usecols=is_used_column)
        else:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", usecols=is_used_column)
    except (ValueError, OSError, KeyError) as error:  # pandas' parser and unicode errors are ValueErrors
        raise UserError(f"{path}: can't be read as a table: {error}") from error
    columns_by_name = {n: [c for c in frame.columns if is_column(c, n)] for n in column_names}
    missing_columns = [n.removesuffix("…") for n in columns if not columns_by_name[n]]
    if missing_columns:
        raise UserError(f"{path}: missing columns {', '.join(missing_columns)}; there are {', '.join(dict.fromkeys(header))}")
    texts_by_name = {
        n: frame[c[0]].fillna("").str.strip().tolist() if c else [""] * len(frame) for n, c in columns_by_name.items()
    }
    return [dict(zip(texts_by_name, row, strict=True)) for row in zip(*texts_by_name.values(), strict=True)]


def read_records(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Records of a JSON list, or of JSON lines (.jsonl), each with at least `keys`.

    Raises UserError naming file, line or record, and what was expected.
    """
    text = path.read_text(encoding="utf-8-sig")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    parsed_lines: list[Any] = []
    for number, line in enumerate(lines):
        try:
            parsed_lines += [json.loads(line)] if line.strip() or len(lines) == 1 else []
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number + error.lineno}: no valid JSON, perhaps cut off: {error.msg}") from None
    record_list = parsed_lines if path.suffix == ".jsonl" else parsed_lines[0]
    if not isinstance(record_list, list):
        raise UserError(f"{path}: expected a list of records, found {type(record_list).__name__}")
    for number, record in enumerate(record_list, 1):
        if not isinstance(record, dict):
            raise UserError(f"{path}, record {number}: expected an object, found {type(record).__name__}")
        if missing_keys := [k for k in keys if k not in record]:
            raise UserError(f"{path}, record {number}: missing {', '.join(missing_keys)}; there are {', '.join(record)}")
    return record_list


def strip_decimal(text: str) -> str:
    """An id or code without the '.0' that spreadsheets and pandas append to whole numbers."""
    return re.sub(r"^(\d+)\.0$", r"\1", text)


def parse_day(text: str) -> date:
    """The date at the start of 'YYYY-MM-DD...'. Raises ValueError."""
    return date.fromisoformat(text[:10])

"""Tables of others, CSV, xlsx, JSON and JSON lines, whatever their names say: read rightly or refused by file, row and column.

`read_rows` gives cells as text, `read_records` gives JSON objects, and `get_text` what one of these holds under a key.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from medmim.common import json_records, outside_files
from medmim.common.errors import UserError

DELIMITERS = (",", ";", "\t", "|")
ZIP_START = b"PK\x03\x04"
OTHER_FORMATS = {
    b"\xd0\xcf\x11\xe0": "an Excel workbook of the old kind (.xls): save it as .xlsx or as CSV in UTF-8",
    b"\x1f\x8b": "compressed by gzip: unpack it (gunzip)",
    b"BZh": "compressed by bzip2: unpack it (bunzip2)",
    b"\xfd7zXZ": "compressed by xz: unpack it (unxz)",
    b"PAR1": "a Parquet file: save it as CSV",
    b"%PDF": "a PDF: take the table itself",
}
SPREADSHEET_NUMBER = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.I)
"""How spreadsheets write a long whole number, most of whose digits are then gone."""
NumberedCells = tuple[int, list[str]]
"""Where a row is in its file (line of its end, or the sheet's row), and its cells."""


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of a table as stripped text, empty where a cell is, with `columns` and `optional` under those names.

    A name that ends in "…" stands for the one column that starts with what precedes it. Absent optional columns are "".
    UTF-8, or UTF-16 and -32 with a byte order mark; separated by comma, semicolon, tab or bar; or a workbook's first sheet.
    Raises UserError naming the file, and row and column where it is one of these.
    """
    header, rows = _open_table(path, columns)
    places = _locate_columns(path, header, columns, optional)
    names, used = [n for n, place in places.items() if place is not None], [p for p in places.values() if p is not None]
    absent_names = dict.fromkeys((n for n, place in places.items() if place is None), "")
    # One more index than is used makes itemgetter give a tuple also where that is one.
    pick_cells, width = itemgetter(*used, 0), len(header)
    records: list[dict[str, str]] = []
    last_filled = 0
    for number, (line, cells) in enumerate(rows, 1):
        if len(cells) != width:
            _check_width(path, number, line, cells, header, rows)
        record = dict(zip(names, map(str.strip, pick_cells(cells)), strict=False))
        records.append(record | absent_names if absent_names else record)
        if any(cells):
            last_filled = number
    del records[last_filled:]  # what a spreadsheet adds below a table
    _check_numbers(path, records, names)
    return records


def _open_table(path: Path, columns: Sequence[str]) -> tuple[list[str], Iterator[NumberedCells]]:
    """The header and the rows below it, read with the separator by which the header has all columns."""
    head = outside_files.read_head(path)
    if not head.strip():
        raise UserError(f"{path}: the file is empty: fetch it again")
    substitute = outside_files.describe_substitute(head) or next((t for m, t in OTHER_FORMATS.items() if head.startswith(m)), "")
    if substitute:
        raise UserError(f"{path}: expected a table, found {substitute}")
    if head.startswith(ZIP_START):
        return _split_header(path, _iter_workbook_rows(path))
    encoding = outside_files.find_encoding(head)
    # By a wrong separator the header may be no CSV at all, so that it is looked at leniently first.
    headers = {d: _split_header(path, _iter_csv_rows(path, encoding, d, is_strict=False))[0] for d in DELIMITERS}
    fitting = (d for d, header in headers.items() if all(_find_places(header, name) for name in columns))
    delimiter = next(fitting, max(DELIMITERS, key=lambda d: len(headers[d])))
    return _split_header(path, _iter_csv_rows(path, encoding, delimiter))


def _split_header(path: Path, rows: Iterator[NumberedCells]) -> tuple[list[str], Iterator[NumberedCells]]:
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: the table is empty: fetch it again")
    return [cell.strip() for cell in first[1]], rows


def _iter_csv_rows(path: Path, encoding: str, delimiter: str, is_strict: bool = True) -> Iterator[NumberedCells]:
    """Rows of a CSV file, blank lines passed over. Raises UserError naming a line."""
    try:
        with outside_files.translate_read_errors(path), path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(_iter_lines(path, file), delimiter=delimiter, strict=is_strict)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
            except csv.Error as error:
                _raise_quote_error(path, reader.line_num, str(error))
    except UnicodeDecodeError:
        data = outside_files.read_bytes(path)
        try:
            data.decode(encoding)
        except UnicodeDecodeError as error:  # with its place in the whole file
            outside_files.raise_decode_error(error, data, str(path))
        raise


def _iter_lines(path: Path, file: io.TextIOWrapper) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise UserError(
                f"{path}, line {number}: holds zero bytes: a copy that broke off, or UTF-16 without a byte order mark: copy the "
                "file again, or save it as UTF-8"
            )
        yield line


def _raise_quote_error(path: Path, line: int, message: str) -> None:
    if "unexpected end of data" in message or "field larger" in message:
        problem = f'a quote (") is not closed up to line {line}: the file is cut off, or a quote in a cell is not doubled'
    else:
        problem = f'line {line}: a closing quote (") is followed by text ({message}): double a quote that belongs to a cell'
    raise UserError(f"{path}, {problem}") from None


def _iter_workbook_rows(path: Path) -> Iterator[NumberedCells]:
    """Rows of a workbook's first sheet."""
    import pandas as pd  # half a second, which a CSV file does not need

    data = outside_files.read_bytes(path)
    try:
        frame = pd.read_excel(io.BytesIO(data), header=None, dtype=str, na_filter=False, engine="openpyxl")
    except MemoryError:
        raise
    except Exception as error:  # a zip may hold anything, and openpyxl raises anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: a zip archive, but no workbook that can be read ({type(error).__name__}: {reason})") from None
    for number, cells in enumerate(frame.itertuples(index=False, name=None), 1):
        yield number, list(cells)


def _find_places(header: Sequence[str], name: str) -> list[int]:
    if name.endswith("…"):
        return [n for n, column in enumerate(header) if column.startswith(name[:-1])]
    return [n for n, column in enumerate(header) if column == name]


def _locate_columns(path: Path, header: list[str], columns: Sequence[str], optional: Sequence[str]) -> dict[str, int | None]:
    """Place of each column in the header, None for an optional one that is absent."""
    places = {name: _find_places(header, name) for name in (*columns, *optional)}
    for name, found_places in places.items():
        if len(found_places) > 1:
            listed = ", ".join(str(place + 1) for place in found_places)
            raise UserError(
                f"{path}: {len(found_places)} columns are named {name} (columns {listed}): remove or rename all but the right one"
            )
    if any(not places[name] for name in columns):
        _raise_missing_columns(path, header, columns)
    return {name: found_places[0] if found_places else None for name, found_places in places.items()}


def _raise_missing_columns(path: Path, header: list[str], columns: Sequence[str]) -> None:
    missing_columns = ", ".join(n.removesuffix("…") for n in columns if not _find_places(header, n))
    raise UserError(f"{path}: missing columns {missing_columns}; there are {', '.join(dict.fromkeys(header))}")


def _check_width(
    path: Path, number: int, line: int, cells: list[str], header: list[str], following_rows: Iterator[NumberedCells]
) -> None:
    """Refuse a row of another number of cells than the header; empty ones at its end, which Excel adds, are cut off."""
    if len(cells) > len(header) and not any(cells[len(header) :]):
        del cells[len(header) :]
        return
    if len(cells) < len(header) and next(following_rows, None) is None:
        remedy = "the file is cut off here: fetch it again"
    else:
        remedy = "a separator or a quote is missing or one too many there: mend the row, or take the owner's own file"
    raise UserError(f"{path}, row {number} (line {line}): has {len(cells)} cells, the header {len(header)}: {remedy}")


def _check_numbers(path: Path, records: list[dict[str, str]], names: list[str]) -> None:
    """Refuse ids that a spreadsheet has rounded: several would become one."""
    for name in names:
        for number, record in enumerate(records, 1):
            value = record[name]
            if "+" in value and SPREADSHEET_NUMBER.fullmatch(value):
                raise UserError(
                    f"{path}, row {number}, column {name}: {value} was a longer number before a spreadsheet rounded it: take the "
                    "owner's own file"
                )


def read_records(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Records of a JSON list, or of JSON lines, each an object with at least `keys`.

    Raises UserError naming file, line and record, and what was expected.
    """
    try:
        data = outside_files.read_bytes(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    records: list[dict[str, Any]] = []
    for number, item in enumerate(json_records.iter_records(data, str(path), path.suffix == ".jsonl"), 1):
        if not isinstance(item.value, dict):
            kind = json_records.describe_kind(item.value)
            raise UserError(f"{path}:{item.line}: record {number} is {kind}, expected an object with {', '.join(keys)}")
        if missing_keys := [k for k in keys if k not in item.value]:
            raise UserError(
                f"{path}:{item.line}: record {number} lacks {', '.join(missing_keys)}; there are {', '.join(item.value)}"
            )
        records.append(item.value)
    return records


def get_text(record: Mapping[str, Any], key: str) -> str:
    """The stripped text under a record's key, a number as it is written. Raises ValueError for null, a list, and so on."""
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key} is {json_records.describe_kind(value)}, expected text or a number")
    return str(value).strip()

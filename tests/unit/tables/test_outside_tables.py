"""Tables of others: one table, written in every way that users and owners do, gives its rows or an error with its place."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from medmim.common.errors import UserError
from medmim.tables.outside_tables import get_text, read_records, read_rows

COLUMNS = ["ID", "Name", "Rating…"]
HEADER = ["", "ID", "Name ", "Rating (CR, PR, PD)", "other"]
# What tables hold, among it what other readers take for a missing value, a number, a separator, a quote or the end of a line.
CELLS = st.one_of(
    st.sampled_from(
        ["NA", "nan", "007", "1.50", "None", "a,b", "a;b", "a\tb", 'say "x"', "two\nlines", "  x ", "1，2", "é\u2028\u0085ü"]
    ),
    st.text(st.characters(exclude_categories=["C"], include_characters="\n", exclude_characters="\x85"), max_size=8),
)
TABLES = st.lists(st.lists(CELLS, min_size=4, max_size=4).map(lambda cells: [*cells, "x"]), min_size=1, max_size=6)


def expected_rows(table: list[list[str]]) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, (cell.strip() for cell in row[1:4]), strict=True)) for row in table]


def write_csv(path: Path, table: list[list[str]], delimiter: str, encoding: str, line_end: str) -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        quoting = csv.QUOTE_ALL if line_end == "\r" else csv.QUOTE_MINIMAL  # csv leaves "\n" unquoted where it ends no line
        csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows([HEADER, *table])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=TABLES,
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252", "gb18030", "latin-1"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    name=st.sampled_from(["t.csv", "t.xlsx", "t.txt"]),
)
def test_a_table_rewritten_gives_its_rows_or_a_named_error(
    tmp_path: Path, table: list[list[str]], delimiter: str, encoding: str, line_end: str, name: str
) -> None:
    path = tmp_path / name
    try:
        write_csv(path, table, delimiter, encoding, line_end)
    except UnicodeEncodeError:  # the encoding does not have the character
        return
    try:
        rows = read_rows(path, COLUMNS)
    except UserError as error:
        assert str(path) in str(error)
        assert encoding in ("utf-16-le", "cp1252", "gb18030", "latin-1")
        return
    assert rows == expected_rows(table) or encoding == "gb18030"  # some of whose texts are UTF-8 of others


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=TABLES, name=st.sampled_from(["t.csv", "t.xlsx"]))
def test_a_workbook_is_read_whatever_its_name(tmp_path: Path, table: list[list[str]], name: str) -> None:
    file = io.BytesIO()
    with pd.ExcelWriter(file, engine="openpyxl") as writer:
        pd.DataFrame(table, columns=HEADER).to_excel(writer, index=False)
        for cell in (cell for row in writer.sheets["Sheet1"].iter_rows() for cell in row if cell.data_type == "f"):
            cell.data_type = "s"  # a text that begins with = is no formula
    (tmp_path / name).write_bytes(file.getvalue())
    assert read_rows(tmp_path / name, COLUMNS) == expected_rows(table)


def test_numbers_and_days_of_a_workbook_are_text(tmp_path: Path) -> None:
    days = pd.to_datetime(["2015-01-31", None])
    pd.DataFrame({"ID": [53464097, 1000000062275870], "Age": [57.0, None], "Day": days}).to_excel(tmp_path / "t.csv", index=False)
    assert read_rows(tmp_path / "t.csv", ["ID", "Age", "Day"]) == [
        {"ID": "53464097", "Age": "57", "Day": "2015-01-31 00:00:00"},
        {"ID": "1000000062275870", "Age": "", "Day": ""},
    ]


def test_table_is_text_as_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffID,Name ,Rating long\n007, NA ,"a,b"\n', encoding="utf-8")
    assert read_rows(tmp_path / "t.csv", COLUMNS, ["absent"]) == [{"ID": "007", "Name": "NA", "Rating…": "a,b", "absent": ""}]


def test_what_spreadsheets_add_around_a_table_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ID;Name;\n1;x;;;\n;;\n2;y;\n;;\n;;\n", encoding="utf-8")
    rows = read_rows(tmp_path / "t.csv", ["ID", "Name"])
    assert [row["ID"] for row in rows] == ["1", "", "2"], (
        "a row in the middle keeps its place, so that numbers are those of the file"
    )


PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Log in &middot; PhysioNet</title></head><body>ID,Name</body></html>"
BROKEN_TABLES = {
    "empty": (b"", r"the file is empty"),
    "blank": (b"\r\n \n", r"the file is empty"),
    "missing column": (b"ID,Nom\n1,x\n", r"missing columns Name; there are ID, Nom"),
    "missing column of another separator": (b"ID;Nom\n1;x\n", r"missing columns Name; there are ID, Nom"),
    "duplicate header": (b"ID,Name,ID\n1,x,2\n", r"2 columns are named ID \(columns 1, 3\): remove or rename"),
    "too many cells": (b"ID,Name\n1,x\n2,y,z\n3,w\n", r"row 2 \(line 3\): has 3 cells, the header 2: a separator"),
    "too few cells": (b"ID,Name\n1\n3,w\n", r"row 1 \(line 2\): has 1 cells, the header 2: a separator"),
    "cut off": (b"ID,Name\n1,x\n2", r"row 2 \(line 3\): has 1 cells, the header 2: the file is cut off"),
    "first row longer": (b"ID,Name\n0,1,x\n1,2,y\n", r"row 1 \(line 2\): has 3 cells"),
    "open quote": (b'ID,Name\n1,"x\n2,y\n', r'a quote \("\) is not closed up to line 3'),
    "open quote, closed by the next": (b'ID,Name\n1,"x\n2,"y"\n3,"z"\n', r"line 3: a closing quote"),
    "latin-1": (
        "ID,Name\n1,x\n2,Ménière\n".encode("latin-1"),
        r":3:4: not UTF-8: found the bytes e9 .*iconv -f cp1252 .*'2,Ménière'",
    ),
    "gbk": ("ID,Name\n1,视网膜，白内障\n".encode("gbk"), r":2:3: not UTF-8"),
    "utf-16 without mark": ("ID,Name\n1,x\n".encode("utf-16-le"), r"line 1: holds zero bytes"),
    "a hole in a copy": (b"ID,Name\n1,x\n" + bytes(100) + b"\n", r"line 3: holds zero bytes"),
    "rounded by a spreadsheet": (b"ID,Name\n1,x\n1.00E+15,y\n", r"row 2, column ID: 1.00E\+15 was a longer number"),
    "a page": (PAGE, r"found a web page, titled 'Log in · PhysioNet', in place of the file, perhaps a login or terms"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"Git LFS pointer"),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), r"\.xls\): save it as \.xlsx or as CSV"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(20), r"compressed by gzip"),
    "a zip that is no workbook": (b"PK\x03\x04" + bytes(60), r"a zip archive, but no workbook"),
}


@pytest.mark.parametrize("kind", BROKEN_TABLES)
def test_a_broken_table_is_refused_with_its_place(tmp_path: Path, kind: str) -> None:
    data, reason = BROKEN_TABLES[kind]
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.csv.*" + reason):
        read_rows(tmp_path / "t.csv", ["ID", "Name"])


def test_a_decoding_error_far_into_a_file_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"ID,Name\n" + b"1,xxxxxxxx\n" * 50_000 + "2,Ménière\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"t\.csv:50002:4: not UTF-8"):
        read_rows(tmp_path / "t.csv", ["ID", "Name"])


@pytest.mark.parametrize("read", [read_rows, read_records])
def test_an_absent_table_is_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(UserError, match=r"t\.csv: (can't be read: )?[Nn]o such file"):
        read(tmp_path / "t.csv", ["ID"])


# JSON

# NEL, LINE SEPARATOR and form feed end a line for str.splitlines, not for JSON lines.
RECORDS = [{"a": "one\u2028two\u0085three\x0cfour"}, {"a": 2, "b": [None, "ü", 1.5]}, {"a": "\U0001f600"}]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le", "latin-1"]),
    as_lines=st.booleans(),
    escape=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    name=st.sampled_from(["r.json", "r.jsonl"]),
)
def test_records_rewritten_are_the_same_or_a_named_error(
    tmp_path: Path, encoding: str, as_lines: bool, escape: bool, line_end: str, name: str
) -> None:
    text = line_end.join(json.dumps(r, ensure_ascii=escape) for r in RECORDS) if as_lines else json.dumps(RECORDS, indent=1)
    if encoding == "latin-1":
        text = text.replace("\u2028", "").replace("\U0001f600", "é") if not escape else text
    (tmp_path / name).write_bytes(text.encode(encoding, errors="strict"))
    try:
        assert read_records(tmp_path / name, ["a"]) == RECORDS
    except UserError as error:
        assert encoding == "latin-1"
        assert f"{tmp_path / name}:" in str(error)
        assert "not UTF-8" in str(error)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("r.json", '[{"a": 1},\n{"a": 2', r"r\.json:2:8: the file is cut off inside record 2"),
        ("r.json", '[{"a": 1},\n', r"r\.json:2:1: the file is cut off after record 1"),
        ("r.json", '{"a": 1}', r"r\.json:1:1: expected '\[' that opens a list of records"),
        ("r.json", '[{"a": 1}, 7]', r"r\.json:1: record 2 is a number, expected an object with a"),
        ("r.json", '[{"a": 1},\n {"b": 1}]', r"r\.json:2: record 2 lacks a; there are b"),
        ("r.json", "", r"r\.json:1:1"),
        ("r.json", "[]", r"r\.json:1:2: expected records, found an empty list"),
        ("r.json", '[{"a": 1, "a": 2}]', r"record 1: key 'a' stands twice"),
        ("r.json", '[{"a": NaN}]', r"record 1: NaN is not JSON"),
        ("r.json", '[{"a": -Infinity}]', r"record 1: -Infinity is not JSON"),
        ("r.json", '[{"a": 1e999}]', r"record 1: the number 1e999 is too large"),
        ("r.json", '[{"a": "\\ud83d"}]', r"record 1: a text has half of a surrogate pair"),
        ("r.json", "[" * 100_000, r"record 1: maximum recursion"),
        ("r.json", PAGE.decode(), r"found a web page, titled 'Log in"),
        ("r.jsonl", "", r"r\.jsonl:1:1: expected records, found an empty file"),
        ("r.jsonl", '{"a": 1}\n\n{"a": ', r"r\.jsonl:3:\d+: the file is cut off inside record 2"),
        ("r.jsonl", '{"a": 1}\n{"a": 1} {"a": 2}\n', r"r\.jsonl:2:9: after record 2 stands"),
        ("r.jsonl", '{"a": 1,\n"b": 2}\n', r"record 1 goes over several lines"),
        ("r.jsonl", '{"a": 1}\n[1]\n', r"r\.jsonl:2: record 2 is a list, expected an object"),
    ],
)  # fmt: skip
def test_records_say_where_they_break(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        read_records(tmp_path / name, ["a"])


def test_a_value_is_text_or_a_number() -> None:
    record = {"t": " x\t", "n": 3, "f": 1.5, "null": None, "list": ["a"], "object": {}, "bool": True}
    assert [get_text(record, key) for key in "tnf"] == ["x", "3", "1.5"]
    for key, kind in {"null": "null", "list": "a list", "object": "an object", "bool": "true or false"}.items():
        with pytest.raises(ValueError, match=f"{key} is {kind}, expected text or a number"):
            get_text(record, key)

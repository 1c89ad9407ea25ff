import pkgutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medmim import schemas
from medmim.tables import table_io

ROW = {"path": "a", "bytes": 1, "sha256": "x"}


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    assert table_io.write_table(tmp_path / "a", "files", [ROW, ROW | {"path": "b"}]) == 2
    table_io.write_table(tmp_path / "b", "files", pd.DataFrame([ROW, ROW | {"path": "b"}]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert table_io.read_table(tmp_path / "a", "files").to_pylist() == [ROW, ROW | {"path": "b"}]
    assert table_io.read_frame(tmp_path / "a", "files", ["bytes"]).bytes.tolist() == [1, 1]
    assert table_io.write_table(tmp_path / "c", "files", []) == 0


def test_null_is_kept_where_the_schema_allows_it() -> None:
    row = {c.name: {"string": "", "int64": 0, "double": 0.0}.get(str(c.type), 0) for c in table_io.table_columns("leaderboard")}
    assert table_io.build_table("leaderboard", [row | {"ci_low": None}]).to_pylist()[0]["ci_low"] is None
    assert table_io.build_table("leaderboard", pd.DataFrame([row | {"ci_low": float("nan")}])).column("ci_low").null_count == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "a", "bytes": 1}, r"row 0: missing columns \['sha256'\]"),
        (ROW | {"size": 1}, r"unknown columns \['size'\]"),
        (ROW | {"bytes": "many"}, "column bytes"),
        (ROW | {"path": None}, "column path of files is null in row 0"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_left(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(table_io.TableError, match=message):
        table_io.write_table(tmp_path / "a", "files", [row])
    assert list(tmp_path.iterdir()) == []


def test_wrong_files_are_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "short.parquet")
    with pytest.raises(table_io.TableError, match=r"short.parquet: not a files table: missing columns \['bytes', 'sha256'\]"):
        table_io.read_table(tmp_path / "short.parquet", "files")
    (tmp_path / "text.parquet").write_text("path,bytes\n")
    with pytest.raises(table_io.TableError, match=r"text.parquet: not a Parquet file"):
        table_io.read_table(tmp_path / "text.parquet", "files")


def test_a_table_of_another_schema_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    table_io.write_table(first, "files", [ROW])
    assert pq.read_schema(first).metadata.keys() == {b"table"}, "version 1 is told by the key's absence"
    with monkeypatch.context() as patch:
        patch.setattr(schemas.files, "VERSION", 2)
        table_io.write_table(second, "files", [ROW])
        assert pq.read_schema(second).metadata == {b"table": b"files", b"schema_version": b"2"}
        assert table_io.read_table(second, "files").to_pylist() == [ROW]
        with pytest.raises(table_io.TableError, match=r"1.parquet: a files table of schema version 1, and .* reads version 2"):
            table_io.read_table(first, "files")
    with pytest.raises(table_io.TableError, match=r"2.parquet: a files table of schema version 2, .* 1: run snakemake again"):
        table_io.read_table(second, "files", ["path"])


def test_every_schema_has_a_version() -> None:
    for module in pkgutil.iter_modules(schemas.__path__):
        assert table_io._schema_version(module.name) >= 1


def test_every_column_has_a_meaning() -> None:
    names = [module.name for module in pkgutil.iter_modules(schemas.__path__)]
    assert {"files", "qa", "leaderboard"} <= {*names}
    assert all(c.meaning for name in names for c in table_io.table_columns(name))

"""Every table that passes between stages: its columns, their meaning and unit, checked on write and on read.

A table's own metadata has its schema's name (`table`) and the rules of use that hold while it is written
(medmim.tables.data_policy).
"""

import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from medmim.common.errors import TableError as TableError
from medmim.common.files import write_atomically
from medmim.tables import data_policy
from medmim.tables.columns import Column

if TYPE_CHECKING:  # half a second, which programs without frames do not need
    import pandas as pd


def table_columns(name: str) -> tuple[Column, ...]:
    """Columns of the named table, from medmim.schemas. Digests of code find the name where it is written out."""
    schema_columns: tuple[Column, ...] = import_module(f"medmim.schemas.{name}").COLUMNS
    return schema_columns


def table_metadata(name: str) -> dict[str, str]:
    """What a table of that name tells of itself, written now."""
    return {"table": name, **data_policy.current_policy().to_metadata()}


def table_schema(name: str) -> pa.Schema:
    """Arrow schema of the named table, meanings kept as field metadata."""
    fields = [pa.field(c.name, c.type, c.nullable, metadata={"meaning": c.meaning}) for c in table_columns(name)]
    return pa.schema(fields, metadata=table_metadata(name))


def _check_table(table: pa.Table, name: str, where: object) -> None:
    expected_schema = table_schema(name)
    missing_columns = [n for n in expected_schema.names if n not in table.column_names]
    unknown_columns = [n for n in table.column_names if n not in expected_schema.names]
    if missing_columns or unknown_columns:
        raise TableError(f"{where}: not a {name} table: missing columns {missing_columns}, unknown columns {unknown_columns}")
    for field in expected_schema:
        column = table.column(field.name)
        if column.type != field.type:
            raise TableError(f"{where}: column {field.name} of {name} is {column.type}, expected {field.type}")
        if not field.nullable and column.null_count:
            row = column.is_null().index(True).as_py()
            raise TableError(f"{where}: column {field.name} of {name} is null in row {row} (of {column.null_count})")


def build_table(name: str, rows: "Rows") -> pa.Table:
    """Arrow table of the named schema from rows or a frame; TableError names column and row of what does not fit."""
    expected_schema = table_schema(name)
    pandas: Any = sys.modules.get("pandas")
    records: Any = rows
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        records = rows.astype(object).where(rows.notna(), None).to_dict("records")
    values_by_column: dict[str, list[Any]] = {c: [] for c in expected_schema.names}
    for number, row in enumerate(records):
        if row.keys() != values_by_column.keys():
            missing_columns, unknown_columns = (
                sorted(values_by_column.keys() - row.keys()),
                sorted(row.keys() - values_by_column.keys()),
            )
            raise TableError(f"{name}, row {number}: missing columns {missing_columns}, unknown columns {unknown_columns}")
        for key, values in values_by_column.items():
            values.append(row[key])
    arrays = []
    for field in expected_schema:
        try:
            arrays.append(pa.array(values_by_column[field.name], field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TableError(f"{name}: column {field.name} (expected {field.type}): {error}") from error
    table = pa.Table.from_arrays(arrays, schema=expected_schema)
    _check_table(table, name, "new table")
    return table


Rows: TypeAlias = "Iterable[Mapping[str, Any]] | pd.DataFrame"


def write_table(path: Path | str, name: str, rows: "Rows | pa.Table", *, row_group: int = 4096) -> int:
    """Check rows against the named schema and write them to a Parquet file, whole or not at all.

    The same rows give the same bytes. Returns the number of rows. Raises TableError.
    """
    table = rows if isinstance(rows, pa.Table) else build_table(name, rows)
    _check_table(table, name, path)
    table = table.select(table_schema(name).names).replace_schema_metadata(table_metadata(name))
    with write_atomically(Path(path)) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group)
    return table.num_rows


def read_table(path: Path | str, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, memory-mapped, and check it against the named schema; `columns` for a part.

    Raises TableError naming the file and what is wrong with it.
    """
    try:
        file_schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise TableError(f"{path}: not a Parquet file: {error}") from error
    _check_table(file_schema.empty_table(), name, path)
    table = pq.read_table(path, columns=columns, memory_map=True)
    if columns is None:
        _check_table(table, name, path)
    return table


def read_frame(path: Path | str, name: str, columns: list[str] | None = None) -> "pd.DataFrame":
    """`read_table` as a pandas frame."""
    return read_table(path, name, columns).to_pandas()

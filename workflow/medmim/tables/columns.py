"""What a table's schema is made of."""

from dataclasses import dataclass

import pyarrow as pa

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
INT = pa.int64()
INTS = pa.list_(pa.int32())
REAL = pa.float64()
REALS = pa.list_(pa.float64())
BYTES = pa.binary()


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type, meaning, and whether it may be null."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False

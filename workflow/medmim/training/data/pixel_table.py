"""The pixels table on disk: Parquet like any other table, and any image of it at a place in the file that is known beforehand.

The column `pixels` is neither compressed nor encoded, and each row group holds it in one page, so its values, each after its
length in 4 bytes, are the last bytes of the group's part of the file: one memory map gives every image without a copy.
"""

import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medmim.common.files import write_atomically
from medmim.tables import table_io

GROUP_BYTES = 32 << 20
"""Pixels in a row group: what is held in memory to write it."""
GROUP_ROWS = 4096
PAGE_BYTES = 1 << 30
"""Above any row group: a page of its own for each."""
PREFIX_BYTES = 4
"""Bytes before each value, its length, as Parquet writes it."""


def write_pixels(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a pixels table as its rows come, whole or not at all. The same rows give the same bytes.

    Returns the number of rows. Raises TableError, and what `rows` raises.
    """
    schema = table_io.table_schema("pixels")
    other_columns = [name for name in schema.names if name != "pixels"]
    options: dict[str, Any] = {
        "compression": {"pixels": "none", **dict.fromkeys(other_columns, "zstd")},
        "write_statistics": other_columns,  # the least and the greatest value would stand before the pixels
        "use_dictionary": False,
        "data_page_size": PAGE_BYTES,
    }
    count = 0
    with write_atomically(Path(path)) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        for group in _split_row_groups(rows):
            writer.write_table(table_io.build_table("pixels", group), row_group_size=GROUP_ROWS)
            count += len(group)
    return count


def _split_row_groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        if group and (size + len(row["pixels"]) > GROUP_BYTES or len(group) == GROUP_ROWS):
            yield group
            group, size = [], 0
        group.append(row)
        size += len(row["pixels"])
    if group:
        yield group


class PixelTable:
    """Images of a pixels table by row or image_id, uint8, height x width x 3, read-only views of the file.

    Raises TableError where the file is not laid out as `write_pixels` does it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        table = table_io.read_table(path, "pixels", ["image_id", "height", "width"])
        self.row_of_image = {image_id: row for row, image_id in enumerate(table.column("image_id").to_pylist())}
        self._shapes = [
            (h, w, 3) for h, w in zip(table.column("height").to_pylist(), table.column("width").to_pylist(), strict=True)
        ]
        sizes = np.array([h * w * 3 for h, w, _ in self._shapes], np.int64)
        self._sizes, self._offsets = sizes.tolist(), self._find_offsets(sizes).tolist()
        with Path(path).open("rb") as file:
            self._bytes = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def _find_offsets(self, sizes: np.ndarray) -> np.ndarray:
        """Where the bytes of each image begin in the file: int64, one a row."""
        metadata = pq.read_metadata(self.path)
        column = table_io.table_schema("pixels").get_field_index("pixels")
        offsets = np.empty(len(sizes), np.int64)
        first = 0
        for group in range(metadata.num_row_groups):
            chunk = metadata.row_group(group).column(column)
            last = first + chunk.num_values
            value_ends = np.cumsum(sizes[first:last] + PREFIX_BYTES)
            header = chunk.total_compressed_size - int(value_ends[-1])
            if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or not 0 < header < 100:
                raise self._layout_error(group)
            offsets[first:last] = chunk.data_page_offset + header + value_ends - sizes[first:last]
            first = last
        return offsets

    def _layout_error(self, group: int) -> table_io.TableError:
        return table_io.TableError(
            f"{self.path}: row group {group} is not laid out as build_shards does it: build the shards again"
        )

    def __getitem__(self, row: int) -> np.ndarray:
        offset, size = self._offsets[row], self._sizes[row]
        if int.from_bytes(self._bytes[offset - PREFIX_BYTES : offset].data, "little") != size:
            raise table_io.TableError(f"{self.path}: row {row} is not {size} bytes long, as its height and width say")
        return self._bytes[offset : offset + size].reshape(self._shapes[row])

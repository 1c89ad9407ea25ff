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

from medmim.common.files import whole
from medmim.tables import table_io

GROUP_BYTES = 32 << 20
"""Pixels in a row group: what is held in memory to write it."""
GROUP_ROWS = 4096
PAGE = 1 << 30
"""Above any row group: a page of its own for each."""
PREFIX = 4
"""Bytes before each value, its length, as Parquet writes it."""


def write(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a pixels table as its rows come, whole or not at all. The same rows give the same bytes.

    Returns the number of rows. Raises TableError, and what `rows` raises.
    """
    schema = table_io.schema("pixels")
    others = [name for name in schema.names if name != "pixels"]
    options: dict[str, Any] = {
        "compression": {"pixels": "none", **dict.fromkeys(others, "zstd")},
        "write_statistics": others,  # the least and the greatest value would stand before the pixels
        "use_dictionary": False,
        "data_page_size": PAGE,
    }
    count = 0
    with whole(Path(path)) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        for group in _groups(rows):
            writer.write_table(table_io.build("pixels", group), row_group_size=GROUP_ROWS)
            count += len(group)
    return count


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
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


class Pixels:
    """Images of a pixels table by row or image_id, uint8, height x width x 3, read-only views of the file.

    Raises TableError where the file is not laid out as `write` does it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        known = table_io.read(path, "pixels", ["image_id", "height", "width"])
        self.rows = {image_id: row for row, image_id in enumerate(known.column("image_id").to_pylist())}
        self._shapes = [
            (h, w, 3) for h, w in zip(known.column("height").to_pylist(), known.column("width").to_pylist(), strict=True)
        ]
        sizes = np.array([h * w * 3 for h, w, _ in self._shapes], np.int64)
        self._sizes, self._places = sizes.tolist(), self._located(sizes).tolist()
        with Path(path).open("rb") as file:
            self._bytes = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def _located(self, sizes: np.ndarray) -> np.ndarray:
        """Where the bytes of each image begin in the file: int64, one a row."""
        metadata = pq.read_metadata(self.path)
        column = table_io.schema("pixels").get_field_index("pixels")
        places = np.empty(len(sizes), np.int64)
        first = 0
        for number in range(metadata.num_row_groups):
            chunk = metadata.row_group(number).column(column)
            last = first + chunk.num_values
            stored = np.cumsum(sizes[first:last] + PREFIX)
            header = chunk.total_compressed_size - int(stored[-1])
            if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or not 0 < header < 100:
                raise self._foreign(number)
            places[first:last] = chunk.data_page_offset + header + stored - sizes[first:last]
            first = last
        return places

    def _foreign(self, group: int) -> table_io.TableError:
        return table_io.TableError(
            f"{self.path}: row group {group} is not laid out as build_shards does it: build the shards again"
        )

    def __getitem__(self, row: int) -> np.ndarray:
        place, size = self._places[row], self._sizes[row]
        if int.from_bytes(self._bytes[place - PREFIX : place].data, "little") != size:
            raise table_io.TableError(f"{self.path}: row {row} is not {size} bytes long, as its height and width say")
        return self._bytes[place : place + size].reshape(self._shapes[row])

"""Shards as a map-style dataset: any sample at any time, nothing tokenized or decoded on the way."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medmim import tables
from medmim.models.layout import Sample

IN_MEMORY = 1 << 30
"""Bytes of pixels that are held in memory; more are read from the file as they are asked for."""


class Shards:
    """The samples of one or more parts, in order. Pickles as its paths, for the workers of a loader.

    Token ids are always held in memory (8 bytes a token), pixels where all fit in `in_memory` bytes. Raises
    tables.TableError where a sample asks for pixels that are not there.
    """

    def __init__(self, samples: Path | str, pixels: Path | str, *, in_memory: int = IN_MEMORY) -> None:
        self._paths = (samples, pixels, in_memory)
        table = tables.read(samples, "samples").combine_chunks()
        self.qa_ids: list[str] = table.column("qa_id").to_pylist()
        self.lengths: np.ndarray = table.column("length").to_numpy()
        """Tokens of each sample after expansion, int64."""
        self._images: list[list[str]] = table.column("image_ids").to_pylist()
        self._ids, self._starts = _flat(table.column("input_ids"))
        self._labels, starts = _flat(table.column("labels"))
        if not np.array_equal(starts, self._starts):
            raise tables.TableError(f"{samples}: labels are not as long as input_ids")
        self._pixels = _Pixels(Path(pixels), in_memory)
        for qa_id, images in zip(self.qa_ids, self._images, strict=True):
            if absent := [i for i in images if i not in self._pixels.place]:
                raise tables.TableError(f"{pixels}: no image {absent[0]}, which sample {qa_id} of {samples} shows")

    def __getstate__(self) -> tuple[Any, ...]:
        return self._paths

    def __setstate__(self, paths: tuple[Any, ...]) -> None:
        self.__init__(*paths[:2], in_memory=paths[2])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.qa_ids)

    def __getitem__(self, index: int) -> Sample:
        """The sample, image tokens not expanded. Its arrays are read-only views: copy before writing."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = slice(self._starts[index], self._starts[index + 1])
        return Sample(self._ids[part], self._labels[part], [self._pixels[i] for i in self._images[index]])

    def image(self, image_id: str) -> np.ndarray:
        """Pixels of one image, uint8, height x width x 3. Raises KeyError."""
        return self._pixels[image_id]


def _flat(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values of a list column end to end, and where each list starts (one more entry than lists)."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(), np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())]).astype(np.int64)


class _Pixels:
    """Rows of a pixels table by image_id."""

    def __init__(self, path: Path, in_memory: int) -> None:
        known = tables.read(path, "pixels", ["image_id", "height", "width"])
        self.place = {image_id: row for row, image_id in enumerate(known.column("image_id").to_pylist())}
        self._heights, self._widths = known.column("height").to_numpy(), known.column("width").to_numpy()
        self._held: list[Any] | None = None
        if 3 * int((self._heights * self._widths).sum()) <= in_memory:
            self._held = list(tables.read(path, "pixels", ["pixels"]).column("pixels"))
        else:
            self._file = pq.ParquetFile(path, memory_map=True)
            groups = range(self._file.metadata.num_row_groups)
            self._starts = np.cumsum([0, *(self._file.metadata.row_group(g).num_rows for g in groups)])

    def __getitem__(self, image_id: str) -> np.ndarray:
        row = self.place[image_id]
        if self._held is not None:
            value = self._held[row]
        else:
            group = int(np.searchsorted(self._starts, row, side="right")) - 1
            # One thread: pyarrow's pool does not survive the fork of a loader's worker.
            column = self._file.read_row_group(group, ["pixels"], use_threads=False).column(0)
            value = column[row - int(self._starts[group])]
        return np.frombuffer(value.as_buffer(), np.uint8).reshape(self._heights[row], self._widths[row], 3)

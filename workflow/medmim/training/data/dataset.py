"""Shards as a map-style dataset: any sample at any time, nothing tokenized, decoded or copied on the way."""

from pathlib import Path
from typing import Any

import numpy as np

from medmim.models.families.base import Sample
from medmim.tables import table_io
from medmim.training.data.pixel_table import PixelTable


class ShardDataset:
    """The samples of one part of the questions, in order. Pickles as its paths, for the workers of a loader.

    Token ids are held in memory (4 bytes a token, and as many for its label), pixels are views of the mapped file. Raises
    tables.TableError where a sample asks for pixels that are not there.
    """

    def __init__(self, samples: Path | str, pixels: Path | str) -> None:
        self._paths = (samples, pixels)
        table = table_io.read_table(samples, "samples").combine_chunks()
        self.qa_ids: list[str] = table.column("qa_id").to_pylist()
        self.lengths: np.ndarray = table.column("length").to_numpy()
        """Tokens of each sample after expansion, int64."""
        self._ids, self._starts = _flatten_lists(table.column("input_ids"))
        self._labels, starts = _flatten_lists(table.column("labels"))
        if starts != self._starts:
            raise table_io.TableError(f"{samples}: labels are not as long as input_ids")
        self._pixels = PixelTable(pixels)
        self._image_rows: list[list[int]] = []
        """Rows of the pixels table."""
        for qa_id, image_ids in zip(self.qa_ids, table.column("image_ids").to_pylist(), strict=True):
            try:
                self._image_rows.append([self._pixels.row_of_image[i] for i in image_ids])
            except KeyError as error:
                raise table_io.TableError(
                    f"{pixels}: no image {error.args[0]}, which sample {qa_id} of {samples} shows"
                ) from None

    def __getstate__(self) -> tuple[Any, ...]:
        return self._paths

    def __setstate__(self, paths: tuple[Any, ...]) -> None:
        self.__init__(*paths)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.qa_ids)

    def __getitem__(self, index: int) -> Sample:
        """The sample, image tokens not expanded. Its arrays are read-only views: copy before writing."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        token_range = slice(*self._starts[index : index + 2])
        return Sample(self._ids[token_range], self._labels[token_range], [self._pixels[row] for row in self._image_rows[index]])

    def get_image(self, image_id: str) -> np.ndarray:
        """Pixels of one image, uint8, height x width x 3. Raises KeyError."""
        return self._pixels[self._pixels.row_of_image[image_id]]


def _flatten_lists(column: Any) -> tuple[np.ndarray, list[int]]:
    """Values of a list column end to end, and where each list starts (one more entry than lists)."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(), [0, *np.cumsum(lists.value_lengths().to_numpy()).tolist()]

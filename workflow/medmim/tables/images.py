"""Images as the pipeline keeps them: 8-bit grey or RGB pixels, losslessly as PNG, named by their content.

`encode_png` and `decode_png` go between pixels and PNG, `downscale_pixels` bounds the longest side, `write_images` and
`ImageStore` are the
two ends of the images table.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medmim.common.errors import TableError
from medmim.common.files import write_atomically
from medmim.tables import table_io

RELEASE_PREFIX = "release/"
METADATA_COLUMNS = [c.name for c in table_io.table_columns("images") if c.name not in ("bytes", "thumbnail")]
# A random image costs the decompression of its row group, a row group costs about 2 kB of footer: 16 keeps both small.
ROW_GROUP_SIZE = 16


def collapse_equal_channels(pixels: np.ndarray) -> np.ndarray:
    """H x W of an H x W x 3 array whose three channels are equal everywhere; any other array as it is."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


def downscale_pixels(pixels: np.ndarray, size: int) -> np.ndarray:
    """Shrink uint8 pixels, H x W or H x W x 3, so that the longest side is at most `size`; never enlarges."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    if scale >= 1:
        return pixels
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.LANCZOS))


def encode_png(pixels: np.ndarray) -> tuple[str, bytes]:
    """(image_id, PNG) of uint8 pixels, H x W grey or H x W x 3 RGB.

    RGB with three equal channels is kept as grey, so that one picture has one id however its file stored it.
    image_id is the hex sha256 of mode, width, height and pixels. Raises ValueError for another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}; expected uint8, H x W or H x W x 3")
    image = Image.fromarray(np.ascontiguousarray(collapse_equal_channels(pixels)))
    header = f"{image.mode} {image.width} {image.height}\n".encode()
    png = io.BytesIO()
    image.save(png, "PNG")
    return hashlib.sha256(header + image.tobytes()).hexdigest(), png.getvalue()


def decode_png(png: bytes) -> Image.Image:
    """The image of `encode_png`'s PNG, mode L or RGB, loaded."""
    image: Image.Image = Image.open(io.BytesIO(png), formats=["PNG"])
    image.load()
    return image


def write_images(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write an images table as its rows come, laid out for reading single rows at random; whole or not at all.

    Returns the number of rows. Raises TableError, and what `rows` raises.
    """
    schema = table_io.table_schema("images")
    bare = schema.empty_table().replace_schema_metadata(table_io.table_metadata("images")).schema
    count, rows = 0, iter(rows)
    with (
        write_atomically(Path(path)) as temporary,
        pq.ParquetWriter(temporary, bare, compression="zstd", use_dictionary=False) as writer,
    ):
        while group := list(islice(rows, ROW_GROUP_SIZE)):
            writer.write_table(table_io.build_table("images", group).cast(bare))
            count += len(group)
    return count


def collect_release_paths(qa_paths: Iterable[Path], source: str) -> set[str]:
    """Paths of a source's images that questions of the authors' release show, as it names them."""
    tables = [table_io.read_table(path, "qa", ["source", "image_ids"]) for path in qa_paths]
    rows = (row for table in tables for row in table.to_pylist() if row["source"] == source)
    return {i.removeprefix(RELEASE_PREFIX) for row in rows for i in row["image_ids"] if i.startswith(RELEASE_PREFIX)}


class ImageStore:
    """Images of one or more images tables, by reference: an image_id, or "release/<release_path>".

    Tables are memory-mapped and only ids are held, so many workers can open the same files. Pickles as its paths.
    Where two tables hold the same pixels, the first table's row answers for them.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self.paths = tuple(Path(p) for p in paths)
        self._open_tables()

    def _open_tables(self) -> None:
        self._locations: dict[str, tuple[int, int]] = {}  # reference -> number of the file, row in it
        self._files = []
        self._group_starts = []
        for number, path in enumerate(self.paths):
            ids = table_io.read_table(path, "images", ["image_id", "release_path"])
            for row, (image_id, released) in enumerate(zip(*(c.to_pylist() for c in ids.columns), strict=True)):
                self._locations.setdefault(image_id, (number, row))
                if released:
                    self._locations.setdefault(RELEASE_PREFIX + released, (number, row))
            file = pq.ParquetFile(path, memory_map=True)
            lengths = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            self._files.append(file)
            self._group_starts.append(np.cumsum([0, *lengths]))

    def __getstate__(self) -> tuple[Path, ...]:
        return self.paths

    def __setstate__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._open_tables()

    def __len__(self) -> int:
        return sum(f.metadata.num_rows for f in self._files)

    def __contains__(self, reference: object) -> bool:
        return reference in self._locations

    def _locate_row(self, reference: str) -> tuple[int, int, int]:
        """Number of the file, row group in it, row in that. Raises LookupError."""
        try:
            number, row = self._locations[reference]
        except KeyError:
            where = ", ".join(p.as_posix() for p in self.paths)
            raise LookupError(f"image {reference!r} is in none of the images tables: {where}") from None
        group = int(np.searchsorted(self._group_starts[number], row, side="right")) - 1
        return number, group, row - int(self._group_starts[number][group])

    def _read_row_group(self, number: int, group: int, columns: list[str]) -> pa.Table:
        # One thread: pyarrow's pool does not survive the fork of a data loader's worker.
        return self._files[number].read_row_group(group, columns, use_threads=False)

    def read_row(self, reference: str) -> dict[str, Any]:
        """Columns of the image's row except its pixels. Raises LookupError naming the reference where it is absent."""
        number, group, row = self._locate_row(reference)
        row_values: dict[str, Any] = self._read_row_group(number, group, METADATA_COLUMNS).slice(row, 1).to_pylist()[0]
        return row_values

    def resolve_image_id(self, reference: str) -> str:
        """The image_id behind a reference, which is the hash of its pixels. Raises LookupError."""
        return str(self.read_row(reference)["image_id"]) if reference.startswith(RELEASE_PREFIX) else reference

    def find_tables(self, references: Iterable[str]) -> list[Path]:
        """Return the tables whose rows answer for the references, in order. Raises LookupError."""
        return [self.paths[number] for number in sorted({self._locate_row(reference)[0] for reference in references})]

    def read_png(self, reference: str) -> bytes:
        """The image's PNG. Raises LookupError."""
        number, group, row = self._locate_row(reference)
        png: bytes = self._read_row_group(number, group, ["bytes"]).column(0)[row].as_py()
        return png

    def read_image(self, reference: str) -> Image.Image:
        """The image, mode L or RGB. Raises LookupError, TableError where the table is damaged."""
        return self._decode_stored(reference, self.read_png(reference))

    def _decode_stored(self, reference: str, png: bytes) -> Image.Image:
        try:
            return decode_png(png)
        except Exception as error:  # we wrote it: whatever is wrong with it came later
            path = self.paths[self._locations[reference][0]]
            raise TableError(
                f"{path}: image {reference} is damaged ({type(error).__name__}: {error}): delete the file and run snakemake again"
            ) from error

    def read_images(self, references: Iterable[str]) -> list[Image.Image]:
        """The images in the order of the references; neighbours in one row group are read at once. Raises as read_image."""
        loaded_images = []
        located = ((*self._locate_row(r), r) for r in references)
        for (number, group), locations in groupby(located, key=lambda place: place[:2]):
            pngs = self._read_row_group(number, group, ["bytes"]).column(0)
            loaded_images += [self._decode_stored(reference, pngs[row].as_py()) for *_, row, reference in locations]
        return loaded_images

    def group_by_row_group(self, references: Iterable[str]) -> list[list[str]]:
        """The references in the order in which the tables hold them, a list for each row group. Raises LookupError."""
        locations = sorted((self._locate_row(r), r) for r in references)
        return [[r for _, r in group] for _, group in groupby(locations, key=lambda place: place[0][:2])]

    def to_frame(self) -> pd.DataFrame:
        """Every row of every table without its pixels, in order of the tables."""
        return pd.concat([table_io.read_frame(p, "images", METADATA_COLUMNS) for p in self.paths], ignore_index=True)

"""From a file's bytes to an image as it is kept. Only what the bytes say is a reason to turn a picture away.

An error of the disk, the network or memory stops the stage by name: counted as a bad image, it would change the result.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medmim.common import outside_files
from medmim.common.errors import UserError
from medmim.common.isolated_processes import ProcessDeath
from medmim.tables.images import downscale_pixels, encode_png
from medmim.tables.thumbnails import compute_thumbnail

PixelReader = Callable[[Any], np.ndarray]
"""Makes uint8 pixels of a file's bytes, or of what they were decoded to."""
FileDecoder = Callable[[bytes], Any]
T = TypeVar("T")


@dataclass(frozen=True)
class RenderedImage:
    """Pixels of a picture as stored."""

    image_id: str
    png: bytes
    thumbnail: bytes
    width: int
    height: int
    sha256: str


def decode_bytes(data: bytes, decode: Callable[[bytes], T]) -> T:
    """What `decode` makes of a file's bytes. Raises ValueError with the reason for whatever it raises of them.

    Errors of the system and of memory pass: readers bound what they allocate by what a header says.
    """
    try:
        return decode(data)
    except Exception as error:  # libraries raise anything on broken files
        if outside_files.is_read_error(error) or isinstance(error, MemoryError):
            raise
        if substitute := outside_files.describe_substitute(data):
            raise ValueError(f"is {substitute}") from None
        raise ValueError(describe_error(error)) from error


def describe_error(error: Exception) -> str:
    """An error in one line, the same in every run; with its class, unless it is one of ours."""
    message = " ".join(re.sub(r" at 0x[0-9a-f]+", "", str(error)).split())[:300]
    return message if type(error) in (ValueError, FileNotFoundError) else f"{type(error).__name__}: {message}"


def render_image(data: bytes, read_pixels: PixelReader, size: int) -> RenderedImage | str:
    """Decode, normalise and encode one picture; the reason, where that can't be done. A pure function of the bytes."""
    return render_images(data, None, [read_pixels], size)[0]


def render_images(
    data: bytes, decode_file: FileDecoder | None, readers: Sequence[PixelReader], size: int
) -> list[RenderedImage | str]:
    """As `render_image`, all pictures of one file, which is decoded once; readers take its bytes where there is no decoder."""
    try:
        decoded = data if decode_file is None else decode_bytes(data, decode_file)
    except ValueError as error:
        return [str(error)] * len(readers)
    sha256 = hashlib.sha256(data).hexdigest()
    return [_render_decoded(data, decoded, read_pixels, size, sha256) for read_pixels in readers]


def _render_decoded(data: bytes, decoded: Any, read_pixels: PixelReader, size: int, sha256: str) -> RenderedImage | str:
    def render(_: bytes) -> RenderedImage:
        pixels = read_pixels(decoded)
        if pixels.min() == pixels.max():
            raise ValueError(f"the image is blank: every value is {pixels.min()}")
        pixels = downscale_pixels(pixels, size)
        image_id, png = encode_png(pixels)
        return RenderedImage(image_id, png, compute_thumbnail(pixels), pixels.shape[1], pixels.shape[0], sha256)

    try:
        return decode_bytes(data, render)
    except ValueError as error:
        return str(error)


def describe_death(death: ProcessDeath, path: Path) -> str:
    """The reason to turn a picture away whose decoder ended its process. Raises UserError where someone else ended it."""
    if death.was_killed:
        raise UserError(
            f"{path}: the process that reads it was killed ({death}), as for lack of memory: give the job more memory, or fewer "
            "threads"
        )
    return f"its decoder ended the process ({death})"

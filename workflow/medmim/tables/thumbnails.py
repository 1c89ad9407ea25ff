"""Thumbnails: what the images table keeps of each picture beside its exact hash, to find copies of it by how they look.

A perceptual hash of 64 or 256 bits does not do: whoever crops a picture changes most of its bits, and pictures of one kind, such
as fundus photographs, have most bits in common. A thumbnail can be tried with other crops (medmim.questions.near_copies).
"""

import numpy as np
from PIL import Image

SIDE = 64
"""Pixels on each side of a thumbnail, whatever the picture's shape: a crop changes the shape."""


def compute_thumbnail(pixels: np.ndarray) -> bytes:
    """Return SIDE x SIDE grey values, row by row, of uint8 pixels, H x W or H x W x 3."""
    grey = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    return grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS).tobytes()


def stack_thumbnails(thumbnails: list[bytes]) -> np.ndarray:
    """Return thumbnails as one array, n x SIDE x SIDE, uint8. Raises ValueError where one is of another size."""
    if wrong_sizes := {len(f) for f in thumbnails} - {SIDE * SIDE}:
        raise ValueError(f"a thumbnail of {min(wrong_sizes)} bytes, expected {SIDE * SIDE}")
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE)

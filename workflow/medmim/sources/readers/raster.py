"""JPEG, PNG, TIFF and the like as 8-bit pixels."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medmim.sources.readers.intensity import compute_robust_range, stretch_to_uint8

HIGH_DEPTH_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def read_pixels(data: bytes) -> np.ndarray:
    """uint8 pixels, H x W or H x W x 3, upright by the EXIF orientation.

    More than 8 bits are windowed to percentiles 0.5-99.5, since 16-bit files often use 10 or 12 of their bits.
    Transparency is laid over white, as a page would show it. Raises ValueError for what is no image, cut off or animated.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ValueError(f"{frames} frames; expected a single image")
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise ValueError("can't be decoded: no image format that Pillow knows") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's names for broken files
        raise ValueError(f"can't be decoded: {error}") from error
    if upright.mode in HIGH_DEPTH_MODES:
        values = np.asarray(upright)
        return stretch_to_uint8(values, *compute_robust_range(values))
    if upright.mode in ("1", "L"):
        return np.asarray(upright.convert("L"))
    if upright.has_transparency_data:
        white_page = Image.new("RGBA", upright.size, "white")
        white_page.alpha_composite(upright.convert("RGBA"))
        upright = white_page
    return np.asarray(upright.convert("RGB"))

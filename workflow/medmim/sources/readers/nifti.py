"""NIfTI volumes: axial slices as 8-bit pixels, in the radiological convention."""

import gzip
import io
import math
import zlib

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from PIL import Image
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from medmim.sources.readers.intensity import compute_robust_range, stretch_to_uint8

GZIP_MAGIC = b"\x1f\x8b"
MAX_VOLUME_BYTES = 1 << 31
"""What a file may expand to; a volume of 512 x 512 x 512 doubles is half of that."""
MAX_VOXELS = 1 << 28
"""Voxels; each takes 4 bytes here whatever the file has for it."""
READ_ERRORS = (HeaderDataError, WrapStructError, ImageFileError, EOFError, OSError, zlib.error)


def read_volume(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(float32 values X x Y x Z, 4 x 4 affine in mm) in the canonical orientation, RAS+, scaled by slope and intercept.

    Raises ValueError for no NIfTI, cut off, more than one volume, no orientation, values that are not finite.
    """
    try:
        raw = _decompress_volume(data) if data.startswith(GZIP_MAGIC) else data
        image_class = nib.Nifti2Image if int.from_bytes(raw[:4], "little") == 540 else nib.Nifti1Image
        image = image_class.from_stream(io.BytesIO(raw))
        if not int(image.header["qform_code"]) and not int(image.header["sform_code"]):
            raise ValueError("the header gives no orientation: qform_code and sform_code are 0")
        if len(image.shape) < 3 or image.shape[3:] not in ((), (1,)):
            raise ValueError(f"shape {image.shape}; expected one volume of three dimensions")
        if math.prod(image.shape) > MAX_VOXELS:
            raise ValueError(f"shape {image.shape}; at most {MAX_VOXELS} voxels are read")
        canonical = nib.as_closest_canonical(image)
        values = canonical.get_fdata(dtype=np.float32, caching="unchanged").reshape(canonical.shape[:3])
    except READ_ERRORS as error:
        raise ValueError(f"no readable NIfTI volume: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values are not finite")
    return values, canonical.affine


def _decompress_volume(data: bytes) -> bytes:
    with gzip.open(io.BytesIO(data)) as file:
        raw = file.read(MAX_VOLUME_BYTES + 1)
    if len(raw) > MAX_VOLUME_BYTES:
        raise ValueError(f"the file expands to more than {MAX_VOLUME_BYTES} bytes: refused as a bomb")
    return raw


def compute_slice_heights(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Height in mm, towards the head in scanner coordinates, of the middle of every axial slice."""
    middle = (np.array(shape[:2]) - 1) / 2
    return affine[2, :2] @ middle + affine[2, 2] * np.arange(shape[2]) + affine[2, 3]


def read_axial_slice(data: bytes, height: float) -> np.ndarray:
    """uint8 pixels of the axial slice nearest to `height` (mm, scanner coordinates), anterior up, patient's right on the left.

    Windowed to percentiles 0.5-99.5 of the volume's values above its background; pixels are made square.
    Raises ValueError where the volume does not reach that height, and as `read_volume`.
    """
    values, affine = read_volume(data)
    slice_heights = compute_slice_heights(values.shape, affine)
    index = int(np.abs(slice_heights - height).argmin())
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if abs(slice_heights[index] - height) > spacing[2]:
        raise ValueError(
            f"the volume reaches from {slice_heights.min():.1f} to {slice_heights.max():.1f} mm, not to the patient's slice "
            f"at {height:.1f} mm"
        )
    low, high = compute_robust_range(values[values > values.min()])
    pixels = np.ascontiguousarray(stretch_to_uint8(values[::-1, ::-1, index], low, high).T)
    pixel_spacing = spacing[:2].min()
    size = tuple(max(1, round(n * s / pixel_spacing)) for n, s in zip(values.shape[:2], spacing[:2], strict=True))
    return pixels if size == values.shape[:2] else np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def find_enhancing_slice(data: bytes) -> tuple[int, float]:
    """(index from the feet, height in mm) of the axial slice at the median height of bright tissue deep inside the head.

    Deep is what is further from the head's outline in its slice than a sixth of the head's width, beneath scalp and
    skull; bright is the brightest 2 % of it. In a contrast-enhanced T1 volume an enhancing tumour is most of that, and
    the median lies in its middle, solid or ring-shaped.
    Raises ValueError as `read_volume`, and where the head is nowhere that deep.
    """
    values, affine = read_volume(data)
    low, high = compute_robust_range(values)
    head_mask = values > low + 0.1 * (high - low)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[:2]
    head_columns = np.flatnonzero(head_mask.any(axis=(1, 2)))
    min_depth = (head_columns[-1] - head_columns[0] + 1) * spacing[0] / 6
    deep_mask = np.empty_like(head_mask)
    for index in range(values.shape[2]):
        outline = np.pad(binary_fill_holes(head_mask[..., index]), 1)  # the edge of the volume is an outline too
        deep_mask[..., index] = distance_transform_edt(outline, spacing)[1:-1, 1:-1] > min_depth
    if not deep_mask.any():
        raise ValueError("the volume shows no head")
    bright_mask = deep_mask & (values >= np.percentile(values[deep_mask], 98))
    index = int(np.median(np.nonzero(bright_mask)[2]))
    return index, float(compute_slice_heights(values.shape, affine)[index])

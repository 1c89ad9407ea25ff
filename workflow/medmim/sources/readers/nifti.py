"""NIfTI volumes: coronal slices as 8-bit pixels, in the radiological convention."""

import gzip
import io
import math
import zlib
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from PIL import Image

from medmim.sources.readers.intensity import compute_robust_range, stretch_to_uint8

GZIP_MAGIC = b"\x1f\x8b"
MAX_VOLUME_BYTES = 1 << 31
"""What a file may expand to; a volume of 512 x 512 x 512 doubles is half of that."""
MAX_VOXELS = 1 << 28
"""Voxels; each takes 4 bytes here whatever the file has for it."""
HEADER_BYTES = 1024
"""What a header of either version takes, and more."""
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


def read_grid(head: bytes) -> tuple[tuple[int, ...], np.ndarray]:
    """(shape, 4 x 4 affine in mm) of a volume in the orientation of `read_volume`, by the first bytes of its file.

    Raises ValueError for no NIfTI.
    """
    try:
        raw = zlib.decompressobj(wbits=31).decompress(head, HEADER_BYTES) if head.startswith(GZIP_MAGIC) else head
        image_class = nib.Nifti2Image if int.from_bytes(raw[:4], "little") == 540 else nib.Nifti1Image
        image = image_class.from_stream(io.BytesIO(raw))  # reads no voxels
        shape = image.shape[:3]
        orientation = nib.io_orientation(image.affine)
        affine = image.affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    except (*READ_ERRORS, OrientationError) as error:
        raise ValueError(f"no readable NIfTI volume: {error}") from error
    places = [int(axis) for axis in orientation[:, 0]]
    return tuple(shape[places.index(axis)] for axis in range(3)), affine


@dataclass(frozen=True)
class WindowedVolume:
    """A volume in the orientation of `read_volume`, and the range of its values that is shown."""

    values: np.ndarray
    spacing: np.ndarray
    """mm along each axis."""
    low: float
    high: float


def read_windowed_volume(data: bytes) -> WindowedVolume:
    """A volume windowed to percentiles 0.5-99.5 of its values above its background. Raises ValueError as `read_volume`."""
    values, affine = read_volume(data)
    low, high = compute_robust_range(values[values > values.min()])
    return WindowedVolume(values, np.linalg.norm(affine[:3, :3], axis=0), low, high)


def cut_coronal_slice(volume: WindowedVolume, index: int) -> np.ndarray:
    """uint8 pixels of a coronal slice, counted from the back of the head; the top is up, the patient's right on the left.

    Pixels are made square. Raises ValueError where the volume has no slice of that index.
    """
    if not 0 <= index < volume.values.shape[1]:
        raise ValueError(f"the volume has {volume.values.shape[1]} coronal slices, none of index {index}")
    pixels = np.ascontiguousarray(stretch_to_uint8(volume.values[::-1, index, ::-1], volume.low, volume.high).T)
    spacing = volume.spacing[[0, 2]]
    width, height = (max(1, round(n * s / spacing.min())) for n, s in zip(pixels.T.shape, spacing, strict=True))
    if (height, width) == pixels.shape:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))

"""DICOM as 8-bit pixels, as a viewer would show it: rescaled, windowed, MONOCHROME1 inverted, padding black."""

import io
from typing import Any

import gdcm  # noqa: F401  pydicom decodes compressed pixels through it: here so that the code digest knows its version
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from medmim.sources.readers.intensity import compute_robust_range, stretch_to_uint8

MAX_SAMPLES = 1 << 28
"""Rows x columns x samples of a pixel; a mammogram has 2 ** 24."""
MONOCHROME_KINDS = ("MONOCHROME1", "MONOCHROME2")


def _find_padding(raw: np.ndarray, ds: Dataset) -> np.ndarray:
    """Where the pixels are padding by PixelPaddingValue and PixelPaddingRangeLimit."""
    if ds.get("PixelPaddingValue") is None:
        return np.zeros(raw.shape, bool)
    first_value = int(ds.PixelPaddingValue)
    last_value = first_value if ds.get("PixelPaddingRangeLimit") is None else int(ds.PixelPaddingRangeLimit)
    return (raw >= min(first_value, last_value)) & (raw <= max(first_value, last_value))


def _apply_voi_lut(values: np.ndarray, item: Dataset) -> np.ndarray:
    """Apply one item of the VOI LUT Sequence (PS3.3 C.11.2.1.1) and bring its output range to 8 bits.

    pydicom's apply_voi computes indices in the type of the table's output, so that an 8-bit table of more than 256
    entries wraps around.
    """
    entries, first, bits = (int(v) for v in item.LUTDescriptor)
    entries = entries or 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) == entries else "<u2")
    table = np.asarray(data, np.int64)[:entries]
    if len(table) < entries:
        raise ValueError(f"the VOI LUT has {len(table)} entries, its descriptor says {entries}")
    scaled_table = stretch_to_uint8(table, 0, max((1 << bits) - 1, int(table.max())))
    return scaled_table[np.clip(np.rint(values).astype(np.int64) - first, 0, entries - 1)]


def _apply_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Apply a window (PS3.3 C.11.2.1.2, C.11.2.1.3) with the output range 0 to 255."""
    if function == "SIGMOID" and width > 0:
        with np.errstate(over="ignore"):
            return np.rint(255 / (1 + np.exp(-4 * (values - center) / width))).astype(np.uint8)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise ValueError(f"VOI LUT function {function} of width {width:g} is not supported")
    return stretch_to_uint8(values, center - width / 2, center + width / 2)


def _index_levels(raw: np.ndarray) -> tuple[np.ndarray, Any]:
    """(values, index) with values[index] equal to raw: for up to 16 bits every value there may be, which are far fewer
    than a mammogram's pixels, so that what follows costs little."""
    if raw.dtype.kind not in "iu" or raw.dtype.itemsize > 2:
        return raw, ...
    first = int(raw.min())
    return np.arange(first, int(raw.max()) + 1).astype(raw.dtype), raw.astype(np.intp) - first


def _render_grey(raw: np.ndarray, ds: Dataset) -> np.ndarray:
    padding = _find_padding(raw, ds)
    levels, level_index = _index_levels(raw)
    values = apply_modality_lut(levels, ds)
    # The first of several LUTs or windows is the one that the device shows.
    center, width = (v[0] if isinstance(v, MultiValue) else v for v in (ds.get("WindowCenter"), ds.get("WindowWidth")))
    if ds.get("VOILUTSequence"):
        displayed = _apply_voi_lut(values, ds.VOILUTSequence[0])
    elif center is not None and width is not None:
        displayed = _apply_window(values, float(center), float(width), ds.get("VOILUTFunction") or "LINEAR")
    else:
        displayed = stretch_to_uint8(values, *compute_robust_range(values[level_index][~padding]))
    if ds.PhotometricInterpretation == "MONOCHROME1":
        displayed = 255 - displayed
    displayed = displayed[level_index]
    displayed[padding] = 0
    return displayed


def read_pixels(data: bytes) -> np.ndarray:
    """uint8 pixels, H x W (MONOCHROME1, MONOCHROME2) or H x W x 3 (colour, palette), of a single-frame DICOM file.

    Grey values go through rescale or modality LUT, then the VOI LUT or first window, else percentiles 0.5-99.5.
    Raises ValueError for no DICOM, no pixels, several frames; pydicom's errors for pixels that can't be decoded.
    """
    try:
        ds = dcmread(io.BytesIO(data))
    except (InvalidDicomError, EOFError):
        raise ValueError("no DICOM file: it lacks the DICM prefix or its header is cut off") from None
    photometric = ds.get("PhotometricInterpretation")
    if photometric is None or not any(k in ds for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("no pixel data in the DICOM file")
    if int(ds.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"{ds.NumberOfFrames} frames; expected a single one")
    sample_count = int(ds.get("Rows") or 0) * int(ds.get("Columns") or 0) * int(ds.get("SamplesPerPixel") or 1)
    if sample_count > MAX_SAMPLES:
        raise ValueError(f"{ds.Rows} x {ds.Columns} pixels of {ds.SamplesPerPixel}; at most {MAX_SAMPLES} samples are read")
    raw = pixel_array(ds)  # YBR becomes RGB here
    if photometric in MONOCHROME_KINDS:
        return _render_grey(raw, ds)
    if photometric == "PALETTE COLOR":
        raw = apply_color_lut(raw, ds)
        bits = raw.dtype.itemsize * 8
    else:
        bits = int(ds.BitsStored)
    if raw.ndim != 3 or raw.shape[2] != 3 or raw.dtype.kind != "u":
        raise ValueError(f"{photometric} pixels of shape {raw.shape} and type {raw.dtype} are not supported")
    return (raw >> max(bits - 8, 0)).astype(np.uint8)

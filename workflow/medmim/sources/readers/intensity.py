"""Intensities of any range as 8 bits."""

import numpy as np

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5


def stretch_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 of `values`, `low` and below to 0, `high` and above to 255, linear between. Raises ValueError if low >= high."""
    if not low < high:
        raise ValueError(f"intensities can't be stretched: the window is {low:g} to {high:g}")
    scaled = (np.clip(values, low, high) - low) * (255 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def compute_robust_range(values: np.ndarray) -> tuple[float, float]:
    """Percentiles 0.5 and 99.5 of the values, so that a few hot pixels don't darken the rest; min and max where they meet.

    Raises ValueError where all values are equal or there are none.
    """
    if not values.size or values.min() == values.max():
        raise ValueError("the image is blank: all values are equal")
    low, high = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return (float(low), float(high)) if low < high else (float(values.min()), float(values.max()))

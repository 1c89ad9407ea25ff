"""A reader of the phantoms' mammograms: signs by their shape and place, as an image analyst would find them."""

import numpy as np
from scipy import ndimage

BRIGHT = 0.69
"""Signs and ducts are brighter, muscle is darker."""


def count_spokes(bright: np.ndarray, y: int, x: int) -> int:
    """Lines that leave a point in all directions: runs on two circles around it; 0 where a sixth of a circle has none."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    counts = []
    for radius in (12, 16):
        rows, columns = np.rint(y + radius * np.sin(angles)).astype(int), np.rint(x + radius * np.cos(angles)).astype(int)
        ring = bright[rows.clip(0, bright.shape[0] - 1), columns.clip(0, bright.shape[1] - 1)]
        starts = np.flatnonzero(ring & ~np.roll(ring, 1))
        gaps = np.diff([*starts, starts[0] + len(angles)]) if len(starts) else [len(angles)]
        counts.append(len(starts) if max(gaps) < len(angles) / 6 else 0)
    return min(counts)


def read_view(image: np.ndarray) -> str:
    """The signs in a mammogram (breast on the left), by shape and place alone: what a reader of one view would say."""
    bright = image > BRIGHT
    depth = np.flatnonzero((image > 0.05).any(0)).max()
    in_gland = np.broadcast_to(
        (np.arange(image.shape[1]) > 0.36 * depth) & (np.arange(image.shape[1]) < 0.66 * depth), bright.shape
    )
    small_disk, disk = (np.hypot(*np.mgrid[-r : r + 1, -r : r + 1]) <= r for r in (3, 6))
    thick = ndimage.binary_opening(bright, np.ones((3, 3)))  # ducts are thin
    thick = ndimage.binary_fill_holes(ndimage.binary_closing(thick, small_disk))
    labels, count = ndimage.label(ndimage.binary_opening(thick, disk))
    masses = [labels == k for k in range(1, count + 1) if in_gland[tuple(np.argwhere(labels == k).mean(0).astype(int))]]
    mass = max(masses, key=np.sum, default=np.zeros_like(bright))
    hubs = ndimage.binary_opening(bright, np.ones((3, 3))) & in_gland
    if max((count_spokes(bright, y, x) for y, x in np.argwhere(hubs)), default=0) >= 8:
        return "distortion with core" if ndimage.binary_opening(bright & mass, disk).any() else "distortion"
    if mass.sum() > 450:
        return "irregular mass with clip" if (mass & ~bright).sum() > 30 else "irregular mass"
    if mass.any():
        return "round mass"
    spots, _ = ndimage.label(bright)
    sizes = [s for s in ndimage.find_objects(spots) if all(4 <= e.stop - e.start <= 9 for e in s)]
    return "calcifications" if len(sizes) >= 6 else "nothing"

"""Size and brightness of the pictures that a benchmark shows, for the classifier that sees no more of them."""

from collections.abc import Iterable

import numpy as np

from medmim.benchmarks.quality.text_only import Picture
from medmim.tables.images import ImageStore


def measure_picture(pixels: np.ndarray) -> Picture:
    """Of uint8 pixels, H x W or H x W x 3; brightness is the mean of the channels."""
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels
    dark, bright = np.percentile(grey, (10, 90))
    height, width = pixels.shape[:2]
    return Picture(width, height, float(grey.mean()), float(grey.std()), float(dark), float(bright))


def measure_pictures(store: ImageStore, references: Iterable[str]) -> dict[str, Picture]:
    """By reference, of those that the images tables have; each is decoded once. Raises TableError."""
    pictures = {}
    for group in store.group_by_row_group({r for r in references if r in store}):
        for reference, image in zip(group, store.read_images(group), strict=True):
            pictures[reference] = measure_picture(np.asarray(image))
    return pictures

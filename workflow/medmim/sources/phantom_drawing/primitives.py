"""Seeded generators, soft shapes on a grid, and deterministic files: what all phantoms are drawn with.

Lengths are in half heights of the picture: y runs from -1 (top) to 1, x around 0 with the same unit. Masks are float32
from 0 to 1, intensities 0 to 1.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.floating[Any]]
Point = tuple[float, float]
SYNTHETIC = "SYNTHETIC phantom drawn by procedure: no patient, not for diagnosis"
TRUTH_FILE = "phantom_truth.csv"


def make_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Random generator that depends on the seed and the names, nothing else."""
    return np.random.default_rng([seed, *"/".join(map(str, names)).encode()])


def make_grid(height: int, width: int) -> tuple[Array, Array]:
    """Coordinates y, x of every pixel's centre, each height x width."""
    y = (np.arange(height, dtype=np.float32) + 0.5) * (2 / height) - 1
    x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) * (2 / height)
    return np.broadcast_to(y[:, None], (height, width)), np.broadcast_to(x[None, :], (height, width))


def soft_threshold(values: Array, edge: float) -> Array:
    """1 where values are positive, 0 where negative, linear over `edge` around zero."""
    return np.clip(values / edge + 0.5, 0, 1).astype(np.float32)


def elliptical_distance(grid: tuple[Array, Array], centre: Point, radii: Point = (1.0, 1.0), angle: float = 0.0) -> Array:
    """Elliptical distance from a centre (y, x): 1 on the ellipse of these radii (y, x), turned by `angle` radians."""
    dy, dx = grid[0] - np.float32(centre[0]), grid[1] - np.float32(centre[1])
    if angle:
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dy, dx = c * dy - s * dx, s * dy + c * dx
    return np.hypot(dy / np.float32(radii[0]), dx / np.float32(radii[1]))


def soft_ellipse(grid: tuple[Array, Array], centre: Point, radii: Point, angle: float = 0.0, edge: float = 0.04) -> Array:
    """Filled ellipse with a soft edge, `edge` wide."""
    return soft_threshold((1 - elliptical_distance(grid, centre, radii, angle)) * min(radii), edge)


def gaussian_bump(grid: tuple[Array, Array], centre: Point, radii: Point, angle: float = 0.0) -> Array:
    """Gaussian bump of height 1, `radii` being its standard deviations."""
    return np.exp(-0.5 * elliptical_distance(grid, centre, radii, angle) ** 2)


def radius_wobble(
    grid: tuple[Array, Array], centre: Point, rng: np.random.Generator, amount: float, lobes: Sequence[int]
) -> Array:
    """Factor around 1 for a radius that varies with direction: `amount` is the sum of the lobes' amplitudes."""
    angle = np.arctan2(grid[0] - np.float32(centre[0]), grid[1] - np.float32(centre[1]))
    weights = rng.uniform(0.5, 1, len(lobes))
    waves = [w * np.cos(k * angle + p) for w, k, p in zip(weights, lobes, rng.uniform(0, 2 * np.pi, len(lobes)), strict=True)]
    return (1 + amount * np.sum(waves, axis=0) / weights.sum()).astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Array:
    """Smooth noise of unit variance at the knots, about `cells` bumps over the height."""
    rows, columns = cells + 1, max(2, round(cells * shape[1] / shape[0]) + 1)
    knots = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    return np.asarray(knots.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float32)


def draw_polylines(shape: tuple[int, int], paths: Iterable[tuple[Sequence[Point], float]]) -> Array:
    """Mask of polylines: each a list of points (y, x) and its width, drawn at twice the size and averaged."""
    height, width = shape
    canvas = Image.new("L", (2 * width, 2 * height))
    pen = ImageDraw.Draw(canvas)
    for points, thickness in paths:
        pixels = [(x * height + width, (y + 1) * height) for y, x in points]
        pen.line(pixels, 255, max(1, round(thickness * height)), joint="curve")
    return np.asarray(canvas.reduce(2), np.float32) / 255


def overlay_value(image: Array, mask: Array, value: float | Array) -> Array:
    """`value` laid over the image where the mask is."""
    return image + mask * (value - image)


def paint_colour(image: Array, mask: Array, colour: Sequence[float]) -> Array:
    """A colour laid over an RGB image (height x width x 3) where the mask (height x width) is."""
    return image + mask[..., None] * (np.asarray(colour, np.float32) - image)


def order_strands(shape: tuple[int, int], paths: Sequence[tuple[Sequence[Point], float]]) -> NDArray[np.int32]:
    """Number of the first of these polylines that covers each pixel; their count where none does."""
    height, width = shape
    canvas = Image.new("I", (width, height), len(paths))
    pen = ImageDraw.Draw(canvas)
    for number, (points, thickness) in reversed(list(enumerate(paths))):
        pixels = [((x * height + width) / 2, (y + 1) * height / 2) for y, x in points]
        pen.line(pixels, number, max(1, round(thickness * height / 2)), joint="curve")
    return np.asarray(canvas, np.int32)


def take_strands(order: NDArray[np.int32], allowed: NDArray[np.bool_], count: int) -> Array:
    """Mask of the first strands where that is allowed, as many of them as give `count` pixels: normal tissue that shines.

    With `count` set to what a lesion leaves of a fixed sum, as much shines with a lesion as without.
    """
    mask = np.zeros(order.shape, np.float32)
    pixels = np.flatnonzero(allowed)
    mask.flat[pixels[np.argsort(order.flat[pixels], kind="stable")[: max(0, count)]]] = 1
    return mask


Curve = Sequence[Point]
"""Points (share of the pixels, intensity up to which they reach)."""
CURVE_JITTER = 0.04


def expose(image: Array, curve: Curve, rng: np.random.Generator, inside: Array | NDArray[np.bool_] | None = None) -> Array:
    """Give a grey picture, or its part `inside`, the histogram of a curve. As expose_channels."""
    return expose_channels(image[..., None], [curve], rng, inside)[..., 0]


def expose_channels(
    image: Array, curves: Sequence[Curve], rng: np.random.Generator, inside: Array | NDArray[np.bool_] | None = None
) -> Array:
    """Give a picture, or its part `inside`, the histograms of curves, so that no brightness tells what it shows.

    Only the order of each channel's intensities remains. Shading, noise and the curve are random by a little, as from
    exposure to exposure. Outside of the part nothing changes. `image`: height x width x channels, a curve for each.
    """
    shape = image.shape[:2]
    shading, noise = rng.uniform(0.01, 0.03), rng.uniform(0.004, 0.012)
    rough = shading * smooth_noise(rng, shape, 3) + noise * rng.standard_normal(shape)
    gamma = rng.uniform(0.85, 1.15)
    where = np.ones(shape, bool) if inside is None else inside > 0.5
    count = int(where.sum())
    exposed = np.array(image, np.float32)
    for channel, curve in enumerate(curves):
        shares, intensities = zip(*curve, strict=True)
        bent = np.maximum.accumulate(np.clip(intensities + rng.uniform(-CURVE_JITTER, CURVE_JITTER, len(shares)), 0, 1))
        levels = np.interp((np.arange(count) + 0.5) / count, shares, bent) ** gamma
        ranked = np.empty(count, np.float32)
        ranked[np.argsort((image[..., channel] + rough)[where], kind="stable")] = levels
        exposed[where, channel] = ranked
    return exposed


def draw_black(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """The black around a body: as bright as it happens to be, with some noise."""
    return np.abs(rng.uniform(0, 0.03) + rng.uniform(0.002, 0.01) * rng.standard_normal(shape)).astype(np.float32)


def encode_jpeg(image: Array) -> bytes:
    """JPEG, grey or RGB, of intensities from 0 to 1; its comment says that it is synthetic."""
    buffer = io.BytesIO()
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=98, subsampling=0, comment=SYNTHETIC)
    return buffer.getvalue()


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON."""
    write_file(path, json.dumps(value, indent=1) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], *, from_excel: bool = False) -> None:
    """Write rows as CSV, in the order of their keys; None is an empty cell.

    `from_excel`: with a byte order mark and CRLF, as Excel saves it.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\r\n" if from_excel else "\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, ("\ufeff" if from_excel else "") + buffer.getvalue())


def write_readme(folder: Path, source: str, layout: str) -> None:
    """Write the README that says what the folder is."""
    write_file(folder / "README.txt", f"{SYNTHETIC}.\n\nA made-up cohort in the layout of {source}.\n{layout}\n")


def compress_gzip(data: bytes, level: int = 1) -> bytes:
    """Gzip without a time or name in its header, so that the same data give the same bytes."""
    return gzip.compress(data, level, mtime=0)


class TruthTable:
    """Collects what was drawn, one statement a row."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, path: str, **values: object) -> None:
        """State names and values of the picture at `path`, relative to the source's folder."""
        self.rows += [{"path": path, "name": name, "value": value} for name, value in values.items()]

    def write(self, folder: Path) -> None:
        """Write phantom_truth.csv."""
        write_csv(folder / TRUTH_FILE, self.rows)

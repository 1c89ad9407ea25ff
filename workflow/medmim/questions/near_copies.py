"""Find near copies of pictures by their thumbnails: mirrored, re-encoded, rescaled, slightly cropped, brighter or darker.

Medical pictures of one kind have the same outline, so that a hash of the whole picture either calls different patients copies or
misses what was cropped. Instead each side of a picture is tried with up to 5 % less and more of it, in three steps, each on the
pairs that the step before leaves:

1. Filter. Of a picture with its local contrast evened, 86 low DCT coefficients (as in the perceptual hash of Zauner 2010). The
   81 windows of a query, each side moved by -5, 0 or 5 %, nearly lie in a space of 8 dimensions; a picture passes that has
   most of its energy there (the tangent distance of Simard, LeCun and Denker 1993). A mirrored picture has the same
   coefficients, of which each second one along x changes its sign, so that it costs nothing more.
2. Window. The correlation with each of 625 windows of the query, in steps of 2.5 %.
3. Correlation. Of the fine detail, with the best window in steps of 0.6 %, found along y and x in turn.

tests/bench/bench_copies.py measures misses, false alarms and time. The cost is that of the product of both numbers of
pictures in step 1, 1,400 operations a pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.ndimage import gaussian_filter1d

from medmim.tables.thumbnails import SIDE

MIN_CORRELATION = 0.93
"""Correlation of fine detail from which a picture is a copy."""
MIN_ENERGY = 0.75
"""Share of a picture's energy that step 1 asks for; most copies have 0.85 and more."""
MIN_WINDOW_CORRELATION = 0.93
"""Correlation of low frequencies that step 2 asks for; most copies have 0.98 and more."""
MIN_FIRST_CORRELATION, MIN_ROUND_CORRELATION = 0.65, 0.85
"""Of fine detail in the window of step 2, and after a round of step 3: below, more rounds won't do."""
MAX_ROUNDS = 3
MAX_CROP = 0.05
COARSE_BAND, FINE_BAND = (1.5, 4.0, 6.0), (0.5, 2.0, 4.0)
"""Sigmas in pixels of a thumbnail: of the two Gaussians whose difference is kept, and of the local contrast."""
CONTRAST_FLOOR = 2.0
"""Grey values: weaker contrast is noise and is not raised."""
MIN_DETAIL = 1.0
"""Norm of a picture's fine detail, that of most is 30: a blank one's is what rounding leaves, and correlates with nothing."""
MARGIN = 5
"""Pixels at each edge that are not compared: what a crop took away lies there."""
MAX_FREQUENCY, MIN_FREQUENCY = 10, 2
RANK = 8
QUERY_BLOCK, PICTURE_BLOCK = 64, 8192
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NearCopy:
    """Two pictures by their places in the arrays given, and the correlation of their detail."""

    query: int
    picture: int
    correlation: float


@cache
def _blur_matrix(sigma: float) -> Floats:
    """SIDE x SIDE: a Gaussian along one axis."""
    return np.asarray(gaussian_filter1d(np.eye(SIDE), sigma, axis=0), np.float32)


def _filter_band(pictures: NDArray[np.uint8], band: tuple[float, float, float]) -> Floats:
    """Keep a band of frequencies and divide it by its local strength; n x SIDE x SIDE."""

    def blur(values: Floats, sigma: float) -> Floats:
        matrix = _blur_matrix(sigma)
        return np.asarray(matrix @ values @ matrix.T, np.float32)

    narrow, wide, local = band
    grey = pictures.astype(np.float32)
    detail = blur(grey, narrow) - blur(grey, wide)
    strength = np.sqrt(np.maximum(blur(np.square(detail), local), 0)) + CONTRAST_FLOOR
    return np.asarray(detail / strength, np.float32)


def _window_matrix(low: float, high: float) -> Floats:
    """SIDE x SIDE: resample an axis from the share `low` to 1 - `high` of its length; cubic convolution (Keys 1981)."""
    positions = (low + (np.arange(SIDE) + 0.5) / SIDE * (1 - low - high)) * SIDE - 0.5
    first = np.floor(positions).astype(int)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    for offset in range(-1, 3):
        d = np.abs(positions - (first + offset))
        weights = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))
        np.add.at(matrix, (np.arange(SIDE), np.clip(first + offset, 0, SIDE - 1)), weights)
    return matrix


@cache
def _axis_windows(steps: int) -> Floats:
    """Windows of one axis, both ends moved in `steps` steps to each side; windows x (SIDE without margins) x SIDE."""
    shifts = np.linspace(-MAX_CROP, MAX_CROP, 2 * steps + 1)
    return np.stack([_window_matrix(low, high)[MARGIN : SIDE - MARGIN] for low in shifts for high in shifts])


@cache
def _frequencies() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the square of DCT coefficients are used, and of those which change sign in the mirror."""
    k = np.arange(MAX_FREQUENCY + 1)
    radius = np.hypot(k[:, None], k[None])
    used = (radius >= MIN_FREQUENCY) & (radius <= MAX_FREQUENCY)
    return used, np.broadcast_to(k % 2 == 1, used.shape)[used]


def _normalize(values: Floats) -> Floats:
    normalized: Floats = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), np.float32(1e-6))
    return normalized


@cache
def _cosines() -> Floats:
    """The first DCT coefficients of an axis without its margins; coefficients x pixels."""
    return np.asarray(dct(np.eye(SIDE - 2 * MARGIN), axis=0, norm="ortho")[: MAX_FREQUENCY + 1], np.float32)


def _describe_pictures(pictures: NDArray[np.uint8]) -> Floats:
    """Low DCT coefficients of each picture, normalised; n x coefficients."""
    used, _ = _frequencies()
    cosines: Floats = _cosines()
    blocks = [pictures[i : i + PICTURE_BLOCK] for i in range(0, len(pictures), PICTURE_BLOCK)]
    inner = slice(MARGIN, SIDE - MARGIN)
    squares = [cosines @ _filter_band(block, COARSE_BAND)[:, inner, inner] @ cosines.T for block in blocks]
    return _normalize(np.concatenate([s[:, used] for s in squares]).astype(np.float32))


@cache
def _window_cosines(steps: int) -> Floats:
    """The DCT of each window of one axis; (windows x coefficients) x SIDE."""
    products: Floats = (_cosines() @ _axis_windows(steps)).reshape(-1, SIDE)
    return products


def _describe_windows(coarse: Floats, steps: int) -> Floats:
    """Low DCT coefficients of each window of one filtered picture; windows x coefficients, that of y first."""
    cosines, size = _window_cosines(steps), MAX_FREQUENCY + 1
    products = np.asarray(cosines @ coarse @ cosines.T, np.float32)
    squares = products.reshape(-1, size, len(cosines) // size, size).transpose(0, 2, 1, 3)
    used, _ = _frequencies()
    return _normalize(squares.reshape(-1, size, size)[:, used.reshape(size, size)])


def _filter_pairs(bases: Floats, features: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Energy of each picture in the space of each query, as it is and mirrored; queries x pictures each."""
    _, is_odd = _frequencies()
    even_features, odd_features = features[:, ~is_odd].T, features[:, is_odd].T
    total = np.zeros((len(bases), len(features)), np.float32)
    cross = np.zeros_like(total)
    for i in range(RANK):
        even, odd = bases[:, i, ~is_odd] @ even_features, bases[:, i, is_odd] @ odd_features
        cross += even * odd
        total += even * even
        total += odd * odd
    return total + 2 * cross, total - 2 * cross


@cache
def _fine_windows() -> tuple[Floats, Floats]:
    """Windows of one axis in fine steps, each as one row, and the products of each with itself."""
    windows = _axis_windows(8)
    products = windows.transpose(0, 2, 1) @ windows
    return windows.reshape(len(windows), -1), products.reshape(len(windows), -1)


def _align_axis(moved: Floats, other: Floats) -> tuple[int, float]:
    """The window of the first axis of `moved` that correlates best with `other`, and the correlation.

    moved: SIDE x columns. other: (SIDE without margins) x columns.
    """
    windows, products = _fine_windows()
    numerator = windows @ (other @ moved.T).ravel()
    norm = np.sqrt(np.maximum(products @ (moved @ moved.T).ravel(), MIN_DETAIL**2))
    norm *= max(float(np.linalg.norm(other)), MIN_DETAIL)
    best = int(np.argmax(numerator / norm))
    return best, float(numerator[best] / norm[best])


def _correlate_windows(query: Floats, inner: Floats, windows_y: Floats, windows_x: Floats) -> Floats:
    """Correlation of each of n filtered pictures, without margins, with its own window of a filtered query."""
    moved = windows_y @ query @ windows_x.transpose(0, 2, 1)
    norms = [np.maximum(np.linalg.norm(values, axis=(1, 2)), MIN_DETAIL) for values in (moved, inner)]
    return np.asarray((moved * inner).sum((1, 2)) / norms[0] / norms[1], np.float32)


def _align(query: Floats, inner: Floats, window_y: Floats) -> float:
    """Correlation of a filtered picture, without margins, in the best window of a filtered query, from a window along y."""
    windows, best = _axis_windows(8), -1.0
    for _ in range(MAX_ROUNDS):
        place, _ = _align_axis((window_y @ query).T, inner.T)
        place, correlation = _align_axis(query @ windows[place].T, inner)
        window_y = windows[place]
        if correlation <= best + 1e-4 or correlation < MIN_ROUND_CORRELATION:
            break
        best = correlation
    return max(best, correlation)


def _verify_candidates(
    query: NDArray[np.uint8], pictures: NDArray[np.uint8], features: Floats, is_mirrored: NDArray[np.bool_]
) -> Iterator[tuple[int, float]]:
    """(place, correlation) of the candidates of one query that are copies of it."""
    _, is_odd = _frequencies()
    signs = np.where(is_mirrored[:, None] & is_odd, np.float32(-1), np.float32(1))
    correlations = _describe_windows(_filter_band(query[None], COARSE_BAND)[0], 2) @ (features * signs).T
    chosen = np.flatnonzero(correlations.max(0) >= MIN_WINDOW_CORRELATION)
    if not len(chosen):
        return
    windows = _axis_windows(2)
    places_y, places_x = np.divmod(correlations[:, chosen].argmax(0), len(windows))
    fine_query = _filter_band(query[None], FINE_BAND)[0]
    inner = _filter_band(pictures[chosen], FINE_BAND)[:, MARGIN : SIDE - MARGIN, MARGIN : SIDE - MARGIN]
    inner = np.where(is_mirrored[chosen, None, None], inner[:, :, ::-1], inner)
    first_correlations = _correlate_windows(fine_query, inner, windows[places_y], windows[places_x])
    for n in np.flatnonzero(first_correlations >= MIN_FIRST_CORRELATION):
        correlation = _align(fine_query, inner[n], windows[places_y[n]])
        if correlation >= MIN_CORRELATION:
            yield int(chosen[n]), correlation


def find_near_copies(
    queries: NDArray[np.uint8],
    pictures: NDArray[np.uint8],
    query_groups: NDArray[np.int64],
    picture_groups: NDArray[np.int64],
) -> list[NearCopy]:
    """Near copies of queries among pictures, both n x SIDE x SIDE thumbnails; sorted by query and picture.

    Pairs of one group, such as two pictures of one patient, are not compared.
    """
    copies: dict[tuple[int, int], float] = {}
    if not len(queries) or not len(pictures):
        return []
    features = _describe_pictures(pictures)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        descriptions = [_describe_windows(coarse, 1) for coarse in _filter_band(block, COARSE_BAND)]
        bases = np.linalg.svd(np.stack(descriptions), full_matrices=False)[2][:, :RANK]
        passed = [np.empty((0, 3), np.int64)]  # row of the block, picture, whether it is mirrored
        for first in range(0, len(pictures), PICTURE_BLOCK):
            picture_slice = slice(first, first + PICTURE_BLOCK)
            is_other = query_groups[start : start + QUERY_BLOCK, None] != picture_groups[None, picture_slice]
            for mirror, energy in enumerate(_filter_pairs(bases, features[picture_slice])):
                rows, columns = np.nonzero((energy >= MIN_ENERGY) & is_other)
                passed.append(np.column_stack([rows, columns + first, np.full_like(rows, mirror)]))
        candidates = np.concatenate(passed)
        candidates = candidates[np.argsort(candidates[:, 0], kind="stable")]
        starts = np.searchsorted(candidates[:, 0], np.arange(len(block) + 1))
        for row in np.unique(candidates[:, 0]):
            _, places, mirrors = candidates[starts[row] : starts[row + 1]].T
            for found, correlation in _verify_candidates(block[row], pictures[places], features[places], mirrors == 1):
                key = (start + int(row), int(places[found]))
                copies[key] = max(correlation, copies.get(key, -1.0))
    return [NearCopy(query, picture, correlation) for (query, picture), correlation in sorted(copies.items())]

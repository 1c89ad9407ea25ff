"""Brain, chest and abdomen as more than one source draws them. Shapes and lengths as in draw."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medmim.sources.phantom_drawing import primitives
from medmim.sources.phantom_drawing.primitives import Array, Point

TISSUES = ("scalp", "bone", "csf", "grey", "white", "vein")
TISSUE_INTENSITIES: Mapping[str, tuple[float, ...]] = {
    "T1": (0.75, 0.04, 0.1, 0.42, 0.62, 0.3),
    "CT1": (0.5, 0.03, 0.05, 0.25, 0.34, 1.0),
    "T2": (0.45, 0.04, 1.0, 0.6, 0.4, 0.1),
    "FLAIR": (0.3, 0.02, 0.03, 0.6, 0.5, 0.1),
    "CT": (0.3, 1.0, 0.12, 0.45, 0.38, 0.45),
}
"""Intensity of each tissue in each MR sequence and in CT. Veins and choroid plexus light up with contrast agent (CT1)."""
TUMOUR_INTENSITIES = {"T1": (0.24, 0.26, 0.36), "CT1": (1.0, 0.1, 0.22), "T2": (0.8, 0.95, 0.85), "FLAIR": (0.85, 0.7, 0.95)}
"""Intensity of a tumour's rim, core and surrounding oedema."""


@dataclass(frozen=True)
class Brain:
    """Axial slices of one head, slice first; front at the top, the patient's left on the right."""

    grid: tuple[Array, Array]
    tissue: Array
    """Fraction of each tissue: TISSUES x slices x height x width."""
    inside: Array
    """Brain parenchyma and its fluid: slices x height x width."""


def draw_brain(rng: np.random.Generator, shape: tuple[int, int], levels: Array) -> Brain:
    """A head; `levels` are the slices' heights, 0 through the ventricles, 1 near the vertex, -1 near the base."""
    grid = primitives.make_grid(*shape)
    y, x = grid
    rotation, squeeze = rng.uniform(-0.08, 0.08), rng.uniform(0.74, 0.82)
    size, centre = rng.uniform(0.86, 0.92), (float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03)))
    folds = primitives.radius_wobble(grid, centre, rng, 0.05, (17, 23, 29)) * (1 + 0.02 * primitives.smooth_noise(rng, shape, 12))
    horn_length, horn_gap, horn_width = rng.uniform(0.24, 0.3), rng.uniform(0.085, 0.11), rng.uniform(0.06, 0.085)
    tissue_maps, inside_masks = [], []
    for level in levels:
        scale = size * (1 - 0.22 * level**2)
        head = primitives.elliptical_distance(grid, centre, (scale, scale * squeeze), rotation)
        outer, table, inner = (primitives.soft_threshold((r - head) * scale, 0.05) for r in (1.0, 0.93, 0.84))
        pial = primitives.soft_threshold((0.8 * folds - head) * scale, 0.05)
        white = primitives.soft_threshold((0.66 * (2 * folds - 1) - head) * scale, 0.08)
        falx = primitives.soft_threshold(0.018 - np.abs(x - centre[1] - rotation * (y - centre[0])), 0.03) * (
            np.abs(y - centre[0]) > 0.34
        )
        ventricles = np.zeros(shape, np.float32)
        if abs(level) < 0.8:
            shrink = 1 - 0.5 * abs(level)
            for side in (-1, 1):
                for dy, lean in ((-0.15, 0.38), (0.19, -0.45)):  # front and back horns
                    c = (centre[0] + dy, centre[1] + side * (horn_gap + 0.02))
                    ventricles = np.maximum(
                        ventricles,
                        primitives.soft_ellipse(grid, c, (horn_length * shrink, horn_width * shrink), side * lean, 0.04),
                    )
        csf = np.clip(inner - pial + np.maximum(ventricles, falx) * pial, 0, 1)
        choroid = sum(
            primitives.soft_ellipse(grid, (centre[0] + 0.17, centre[1] + s * (horn_gap + 0.02)), (0.07, 0.035), edge=0.03)
            for s in (-1, 1)
        )
        sinus = sum(
            primitives.soft_ellipse(grid, (centre[0] + s * 0.78 * scale, centre[1]), (0.055, 0.055), edge=0.03) for s in (-1, 1)
        )
        vein = np.clip(choroid * (abs(level) < 0.8) + sinus, 0, 1) * inner
        rest = (1 - vein) * pial * (1 - np.maximum(ventricles, falx))
        tissue_maps.append([outer - table, table - inner, csf * (1 - vein), rest * (1 - white), rest * white, vein])
        inside_masks.append(pial)
    return Brain(grid, np.asarray(tissue_maps, np.float32).transpose(1, 0, 2, 3), np.asarray(inside_masks, np.float32))


def render_contrast(head: Brain, contrast: str) -> Array:
    """Picture of a head without lesions: slices x height x width."""
    return np.tensordot(np.asarray(TISSUE_INTENSITIES[contrast], np.float32), head.tissue, 1)


def add_tumour(image: Array, head: Brain, contrast: str, reach: Array, radius: float) -> Array:
    """A tumour laid over the slices; `reach` is the distance from its centre, its wobble included."""
    rim, core, oedema = TUMOUR_INTENSITIES[contrast]
    inside = head.inside
    image = primitives.overlay_value(image, inside * primitives.soft_threshold(1.45 * radius - reach, 0.1), oedema)
    image = primitives.overlay_value(image, inside * primitives.soft_threshold(radius - reach, 0.06), rim)
    return primitives.overlay_value(image, inside * primitives.soft_threshold(0.55 * radius - reach, 0.06) * (radius > 0.2), core)


@dataclass(frozen=True)
class Chest:
    """One frontal chest; the patient's right is on the left of the picture."""

    grid: tuple[Array, Array]
    base: Array
    """Everything but the lungs' vessels and the ribs."""
    ribs: Array
    vessels: Array
    right: Array
    left: Array
    """Masks of the patient's lungs."""
    diaphragm_y: dict[str, float]
    """y of the diaphragm's dome under each lung, keys right and left."""


def draw_chest(rng: np.random.Generator, shape: tuple[int, int]) -> Chest:
    """A frontal chest radiograph without findings."""
    grid = primitives.make_grid(*shape)
    y, x = grid
    middle, lung_width, lung_height = rng.uniform(-0.03, 0.03), rng.uniform(0.31, 0.35), rng.uniform(0.72, 0.8)
    diaphragm_y = {"right": float(rng.uniform(0.42, 0.5)), "left": float(rng.uniform(0.5, 0.58))}
    spread = rng.uniform(0.42, 0.46)
    lungs = {}
    for side, sign in (("right", -1), ("left", 1)):
        c = middle + sign * spread
        lung = primitives.soft_ellipse(grid, (0.02, c), (lung_height, lung_width * 1.02), -sign * 0.16, 0.05)
        dome = diaphragm_y[side] + 0.55 * (x - c + sign * 0.04) ** 2 / lung_width
        lungs[side] = lung * primitives.soft_threshold(dome - y, 0.05)
    tilt = rng.uniform(0.35, 0.6)
    heart = primitives.soft_ellipse(grid, (0.28, middle + 0.12), (0.26, rng.uniform(0.26, 0.31)), tilt, 0.07)
    stem = primitives.soft_threshold(0.12 + 0.03 * np.sin(5 * y) - np.abs(x - middle), 0.1)
    arch = primitives.soft_ellipse(grid, (-0.3, middle + 0.1), (0.1, 0.09), edge=0.06)
    mediastinum = np.maximum(np.maximum(heart, stem), arch)
    shoulder = 0.25 + 0.75 * np.clip((y + 1.0) / 0.5, 0, 1) ** 0.7 + 0.06 * np.maximum(y, 0)
    body = primitives.soft_threshold(shoulder - np.abs(x - middle), 0.06)
    base: Array = 0.02 + body * (0.6 - 0.08 * np.abs(x))
    base = primitives.overlay_value(base, primitives.soft_threshold(0.16 - np.abs(x - middle), 0.2) * (y < 0.9), 0.68)
    trachea = primitives.soft_threshold(0.045 - np.abs(x - middle), 0.04) * primitives.soft_threshold(-0.35 - y, 0.1)
    for side, lung in lungs.items():
        base = primitives.overlay_value(base, lung, 0.28)
        lungs[side] = lung * (1 - mediastinum)
    base = primitives.overlay_value(base, mediastinum, 0.78)
    base = primitives.overlay_value(base, trachea, 0.45)
    base = primitives.overlay_value(
        base, primitives.soft_ellipse(grid, (diaphragm_y["left"] + 0.24, middle + 0.42), (0.07, 0.13), edge=0.06), 0.35
    )  # stomach bubble
    phase, pitch = rng.uniform(0, 0.17), rng.uniform(0.165, 0.185)
    away = np.abs(x - middle)
    bow = y + 0.75 * (away - 0.42) ** 2 - 0.12 * away  # rear ribs fall outwards
    front = y - 0.45 * away
    cage = primitives.soft_ellipse(grid, (0.1, middle), (0.95, 0.86), edge=0.05) * (away > 0.1)
    ribs = primitives.soft_threshold(np.cos(2 * np.pi * (bow - phase) / pitch) - 0.45, 0.5)
    ribs = cage * (ribs + 0.5 * primitives.soft_threshold(np.cos(2 * np.pi * (front - phase) / (1.5 * pitch)) - 0.6, 0.5))
    collar = [
        ([(-0.72 + r, middle + s * 0.06), (-0.78 + r, middle + s * 0.35), (-0.88 + r, middle + s * 0.72)], 0.06)
        for s in (-1, 1)
        for r in rng.uniform(-0.02, 0.02, 1)
    ]
    ribs = np.maximum(ribs, 1.6 * primitives.draw_polylines(shape, collar))
    paths = []
    for sign in (-1, 1):
        for angle in np.linspace(-1.2, 1.3, 9) + rng.uniform(-0.1, 0.1, 9):
            start, steps = (0.0, middle + sign * 0.12), rng.uniform(0.5, 1, 3).cumsum()
            bend = rng.uniform(-0.25, 0.25)
            ends = [
                (start[0] + 0.22 * t * np.sin(angle + bend * t), start[1] + sign * 0.17 * t * np.cos(angle + bend * t))
                for t in steps
            ]
            paths += [([start, ends[0]], 0.03), ([ends[0], ends[1]], 0.02), ([ends[1], ends[2]], 0.012)]
    vessels = primitives.draw_polylines(shape, paths)
    return Chest(grid, base, ribs, vessels, lungs["right"], lungs["left"], diaphragm_y)


def render_radiograph(frame: Chest, rng: np.random.Generator) -> Array:
    """The chest as a radiograph without findings."""
    lungs = np.maximum(frame.right, frame.left)
    image = frame.base + lungs * (0.2 * frame.vessels + 0.02 * primitives.smooth_noise(rng, frame.base.shape, 40))
    return image + 0.055 * frame.ribs + 0.008 * primitives.smooth_noise(rng, frame.base.shape, 80)


FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")


def add_finding(image: Array, frame: Chest, finding: str, extent: float, side: str, seed: int) -> Array:
    """Lay one of FINDINGS over a radiograph.

    `extent`, 0 to 1, is how much of it: the finding's own size. `side` (right, left) is the patient's, where the finding
    has one (effusion, pneumothorax). The same seed gives the same shape at every extent.
    """
    rng = np.random.default_rng([seed, *finding.encode()])
    y, x = frame.grid
    lung, sign = (frame.right, -1) if side == "right" else (frame.left, 1)
    if finding == "consolidation":
        centre, radius = (float(rng.uniform(0.2, 0.26)), -float(rng.uniform(0.42, 0.48))), 0.34 * extent
        wave = primitives.radius_wobble(frame.grid, centre, rng, 0.2, (2, 3, 5))
        mask = primitives.soft_threshold(
            (wave - primitives.elliptical_distance(frame.grid, centre, (radius, radius))) * radius, 0.08
        )
        return primitives.overlay_value(image, mask * frame.right, 0.95)
    if finding == "edema":
        both = sum(
            primitives.gaussian_bump(frame.grid, (0.0, s * 0.24), (0.16 + 0.24 * extent, 0.06 + 0.14 * extent)) for s in (-1, 1)
        )
        return np.maximum(
            image, primitives.overlay_value(image, np.clip(both, 0, 1), 0.45 + 0.4 * extent)
        )  # denser parts stay as they are
    if finding == "pleural_effusion":
        bottom = frame.diaphragm_y[side]
        level = bottom + 0.12 - 0.74 * extent - 1.6 * np.maximum(sign * x - 0.4, 0) ** 2
        return primitives.overlay_value(image, lung * primitives.soft_threshold(y - level, 0.06), 0.9)
    if finding == "pneumonia":
        centre, radius = (float(rng.uniform(-0.2, -0.14)), float(rng.uniform(0.42, 0.46))), 0.4 * extent
        patchy = primitives.soft_threshold(primitives.smooth_noise(rng, lung.shape, 19) + 0.4, 0.6)
        region = primitives.soft_threshold(1 - primitives.elliptical_distance(frame.grid, centre, (1.2 * radius, radius)), 0.3)
        return primitives.overlay_value(image, patchy * region * frame.left, 0.9)
    assert finding == "pneumothorax", finding
    edge = -0.72 + 0.78 * extent + 1.1 * (sign * x - 0.4) ** 2
    gas = lung * primitives.soft_threshold(edge - y, 0.03)
    rim = lung * primitives.soft_threshold(0.02 - np.abs(y - edge), 0.03)
    return primitives.overlay_value(primitives.overlay_value(image, gas, 0.0), rim, 0.7)


def draw_abdomen(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, dict[str, Point]]:
    """Axial abdominal CT without findings: picture, and centres of liver, kidneys and stomach."""
    grid = primitives.make_grid(*shape)
    half_width, half_height = rng.uniform(0.9, 0.97) * shape[1] / shape[0], rng.uniform(0.72, 0.78)
    skin = primitives.soft_ellipse(grid, (0.02, 0), (half_height, half_width))
    wall = primitives.soft_ellipse(grid, (0.02, 0), (half_height - 0.1, half_width - 0.1))
    image: Array = np.full(shape, 0.02, np.float32)
    image = primitives.overlay_value(image, skin, 0.22)
    image = primitives.overlay_value(image, wall, 0.42)
    image = primitives.overlay_value(
        image, primitives.soft_ellipse(grid, (0.03, 0), (half_height - 0.17, half_width - 0.17)), 0.27
    )
    liver = primitives.soft_ellipse(grid, (-0.12, -0.38 * half_width), (0.42, 0.46 * half_width), 0.35) * primitives.soft_ellipse(
        grid, (0.03, 0), (half_height - 0.17, half_width - 0.17)
    )
    image = primitives.overlay_value(image, liver, 0.62)
    stomach = (-0.28, 0.42 * half_width)
    image = primitives.overlay_value(image, primitives.soft_ellipse(grid, stomach, (0.2, 0.24 * half_width)), 0.5)
    image = primitives.overlay_value(
        image, primitives.soft_ellipse(grid, (stomach[0] - 0.08, stomach[1]), (0.08, 0.16 * half_width)), 0.0
    )
    image = primitives.overlay_value(
        image, primitives.soft_ellipse(grid, (0.02, 0.62 * half_width), (0.2, 0.13 * half_width), 0.3), 0.66
    )  # spleen
    kidneys = {"right kidney": (0.3, -0.46 * half_width), "left kidney": (0.3, 0.44 * half_width)}
    for c in kidneys.values():
        image = primitives.overlay_value(image, primitives.soft_ellipse(grid, c, (0.16, 0.12)), 0.78)
        image = primitives.overlay_value(image, primitives.soft_ellipse(grid, (c[0], c[1] * 0.9), (0.06, 0.04)), 0.4)
    image = primitives.overlay_value(image, primitives.soft_ellipse(grid, (0.4, 0), (0.14, 0.15)), 0.97)  # vertebra
    image = primitives.overlay_value(image, primitives.soft_ellipse(grid, (0.56, 0), (0.09, 0.05)), 0.9)
    image = primitives.overlay_value(image, primitives.soft_ellipse(grid, (0.2, 0.06), (0.06, 0.06)), 0.85)  # aorta
    image = primitives.overlay_value(image, primitives.soft_ellipse(grid, (0.2, -0.1), (0.05, 0.07)), 0.68)
    for angle in (np.arange(10) + 0.5) * (2 * np.pi / 10):  # ribs in the wall
        c = (0.02 + (half_height - 0.14) * np.sin(angle), (half_width - 0.14) * np.cos(angle))
        if c[0] < 0.45:
            image = primitives.overlay_value(image, primitives.soft_ellipse(grid, c, (0.035, 0.06), -angle, 0.03), 0.95)
    image = image + 0.012 * primitives.smooth_noise(rng, shape, 50) * skin
    return image, {"liver": (-0.1, -0.42 * half_width), "stomach": stomach, **kidneys}

"""Synthetic LUMIERE: glioblastoma MRI before and after surgery and over weeks, as NIfTI, with ratings and demographics.

Ratings follow RANO: the enhancing tumour of a week is larger than the least so far (PD), smaller than at baseline (PR), gone
(CR), or as it was (SD). Baseline is the scan after surgery, and after that each one rated PD. The slices that are drawn
stand for coronal ones of the atlas; native volumes are smaller, each on its own grid, and are what visits without masks have.
The tables have the owner's oddities: a byte order mark, trailing blanks, rows twice, ratings without images, T2-Progr.,
Post-Op/PD, None, and weeks such as week-040-2.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.phantom_drawing.primitives import Array, Point

Voxels = NDArray[Any]
SHAPE, SLICES = (64, 64), 8
SEQUENCES = ("T1", "CT1", "T2", "FLAIR")
TUMOUR_RADII = (0.0, 0.14, 0.22, 0.34)
"""Radius of the enhancing tumour at each size; each area is more than double the one before."""
NECROSIS_SHARE, OEDEMA_SHARE = 0.55, 1.45
"""Radii of the dead core, in tumours of more than MIN_NECROSIS_RADIUS, and of the oedema, as shares of the tumour's."""
MIN_NECROSIS_RADIUS = 0.2
ENHANCING_SHARE = 0.24
"""Of the brain in every slice of CT1: what enhances, tumour and vessels together."""
EXPOSURE = ((0.0, 0.03), (0.16, 0.14), (0.24, 0.3), (0.68, 0.52), (0.76, 0.84), (1.0, 1.0))
"""Share of the brain's pixels in a slice of any sequence, and the intensity up to which they reach."""
SIZE_NAMES = ("none", "small", "medium", "large")
RATING_COLUMN = (
    "Rating (according to RANO, PD: Progressive disease, SD: Stable disease, PR: Partial response, "
    "CR: Complete response, Pre-Op: Pre-Operative, Post-Op: Post-Operative)"
)
RATIONALE_COLUMN = (
    "Rating rationale (CRET: complete resection of the enhancing tumor, PRET: partial resection of the enhancing tumor, "
    "T2-Progr.: T2-Progression, L: Lesion)"
)
REGISTERED_AXES = ("L", "A", "S")
AXIS_CODES = (("R", "A", "S"), ("L", "P", "S"), ("L", "A", "S"), ("R", "S", "P"))
SEGMENTATION_FOLDER = "DeepBraTumIA-segmentation/atlas"
ODDITIES = {"T2-Progr.": 0.05, "None": 0.04, "Post-Op/PD": 0.03}
"""How often a week of follow-up is rated so."""


class Week(NamedTuple):
    """A visit: folder, rating and rationale as the table has them, size of the enhancing tumour."""

    name: str
    rating: str
    rationale: str
    size: int
    has_images: bool = True
    has_mask: bool = True


def rate_response(baseline: int, nadir: int, size: int) -> str:
    """RANO rating of a size, by those at baseline and at least so far."""
    if size > nadir:
        return "PD"
    if size == baseline:
        return "SD"
    return "CR" if size == 0 else "PR"


def _sample_follow_up(rng: np.random.Generator, size: int) -> Iterator[Week]:
    """Weeks after an operation that left a tumour of this size."""
    week, baseline, nadir = 2, size, size
    for _ in range(int(rng.integers(4, 7))):
        week += int(rng.integers(6, 15))
        name = f"week-{week:03d}{'-2' if rng.random() < 0.04 else ''}"
        oddity = str(rng.choice(["", *ODDITIES], p=[1 - sum(ODDITIES.values()), *ODDITIES.values()]))
        has_images, has_mask = rng.random() > 0.03, rng.random() > 0.05
        if oddity == "None":
            yield Week(name, "None", "", size)
        elif oddity == "T2-Progr.":
            yield Week(name, "PD", oddity, size)
            baseline = nadir = size
        elif oddity == "Post-Op/PD":
            baseline = nadir = size = min(size, int(rng.integers(2)))
            yield Week(name, oddity, "", size)
        else:
            sizes_by_rating: dict[str, list[int]] = {}
            for new_size in range(4):
                sizes_by_rating.setdefault(rate_response(baseline, nadir, new_size), []).append(new_size)
            names = sorted(sizes_by_rating)
            odds = np.asarray([{"PD": 1.0, "SD": 1.2, "PR": 5.0, "CR": 1.1}[n] for n in names])
            rating = names[rng.choice(len(names), p=odds / odds.sum())]
            size = int(rng.choice(sizes_by_rating[rating]))
            nadir = min(nadir, size)
            if rating == "PD":
                baseline = nadir = size
            yield Week(name, rating, "", size, has_images, has_mask)


def sample_course(rng: np.random.Generator) -> list[Week]:
    """Weeks of one patient, in order."""
    is_complete_resection = bool(rng.random() < 0.5)
    is_same_week = bool(rng.random() < 0.5)
    size, rationale = (0, "CRET") if is_complete_resection else (1, "PRET ")
    before = Week("week-000-1" if is_same_week else "week-000", "Pre-Op", "", int(rng.integers(2, 4)))
    after = Week("week-000-2" if is_same_week else "week-002", "Post-Op ", rationale, size)
    return [before, after, *_sample_follow_up(rng, size)]


def _encode_volume(voxels: Voxels, axes: tuple[str, ...], oblique: float = 0.0, slope: float = 1.0) -> bytes:
    """A volume, right to left x back to front x bottom to top, as NIfTI with the given axis codes."""
    width, depth, height = voxels.shape
    affine = np.diag([220 / width, 112 / depth, 220 / height, 1.0])
    c, s = np.cos(oblique), np.sin(oblique)
    affine = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ affine
    affine[:3, 3] = -affine[:3, :3] @ (np.array(voxels.shape) / 2)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    turned_affine = affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
    volume = nib.Nifti1Image(nib.orientations.apply_orientation(voxels, turn), turned_affine)
    volume.header["descrip"] = b"SYNTHETIC phantom: no patient, not for diagnosis"
    volume.header.set_xyzt_units("mm", "sec")
    if slope != 1.0:
        volume.header.set_slope_inter(slope, 0.0)
    return primitives.compress_gzip(volume.to_bytes())


def _orient_slices(slices: Voxels) -> Voxels:
    """Drawn slices (top up, the patient's left on the right) as a volume, right to left x back to front x bottom to top."""
    return slices[:, ::-1, ::-1].transpose(2, 0, 1)


def _label_tumour(brain_mask: Voxels, reach: Array, radius: float) -> Voxels:
    """uint8 labels as DeepBraTumIA gives them: 1 enhancing tumour, 2 necrosis, 3 oedema."""
    labels = np.where(reach < OEDEMA_SHARE * radius, 3, 0)
    labels[reach < radius] = 1
    if radius > MIN_NECROSIS_RADIUS:
        labels[reach < NECROSIS_SHARE * radius] = 2
    return (labels * brain_mask).astype(np.uint8)


def _write_masks(visit: Path, labels: Voxels, brain_mask: Voxels) -> None:
    """Write the masks of both programs, and the volumes that one of them states."""
    voxels = _orient_slices(labels)
    atlas = visit / SEGMENTATION_FOLDER
    primitives.write_file(atlas / "segmentation/seg_mask.nii.gz", _encode_volume(voxels, REGISTERED_AXES))
    voxel_volume = (220 / SHAPE[1]) * (112 / SLICES) * (220 / SHAPE[0])
    names = {"Enhancing_Core": 1, "Necrotic_NonEnhancing": 2, "Edema_Compartment": 3}
    measured_volumes = {name: float((labels == label).sum() * voxel_volume) for name, label in names.items()}
    primitives.write_json(atlas / "segmentation/measured_volumes_in_mm3.json", measured_volumes)
    brain = _encode_volume(_orient_slices(brain_mask.astype(np.uint8)), REGISTERED_AXES)
    primitives.write_file(atlas / "skull_strip/brain_mask.nii.gz", brain)
    other_labels = np.choose(voxels, [0, 2, 0, 1]).astype(np.uint8)  # HD-GLIO-AUTO's: 1 not enhancing, 2 enhancing
    path = visit / "HD-GLIO-AUTO-segmentation/registered/segmentation.nii.gz"
    primitives.write_file(path, _encode_volume(other_labels, REGISTERED_AXES))


def _order_vessels(rng: np.random.Generator) -> NDArray[np.int32]:
    """Vessels of a patient, in an order by which any number of them is spread over the brain."""
    vessels: list[tuple[list[Point], float]] = []
    for _ in range(60):
        angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.9, 0.9)
        y, x = 0.72 * np.sqrt(rng.random()) * np.array([np.sin(angle), 0.78 * np.cos(angle)])
        heading, points = rng.uniform(0, 2 * np.pi), [(float(y), float(x))]
        for _ in range(5):
            heading += 0.35 * turn
            y, x = y + 0.11 * np.sin(heading), x + 0.11 * np.cos(heading)
            points.append((float(y), float(x)))
        vessels.append((points, 0.062))
    return primitives.order_strands(SHAPE, vessels)


def _add_vessels(image: Array, sequence: str, order: NDArray[np.int32], brain_mask: Voxels, reach: Array, radius: float) -> Array:
    """Lay as many vessels over the slices as makes the enhancing share of each the same with any tumour."""
    value = anatomy.TISSUE_INTENSITIES[sequence][anatomy.TISSUES.index("vein")]
    drawn = []
    for pixels, brain, away in zip(image, brain_mask, reach, strict=True):
        enhancing = (away < radius) & brain & ~((away < NECROSIS_SHARE * radius) & (radius > MIN_NECROSIS_RADIUS))
        free = brain & (away > (OEDEMA_SHARE * radius)) & (order < order.max())
        mask = primitives.take_strands(order, free, int(ENHANCING_SHARE * brain.sum() - enhancing.sum()))
        drawn.append(primitives.overlay_value(pixels, mask, value))
    return np.stack(drawn)


def write_cohort(folder: Path, *, patients: int, seed: int) -> None:
    """Write the volumes below `Imaging/Patient-XXX/week-YYY/` and the two tables."""
    rating_rows: list[dict[str, object]] = []
    patient_rows: list[dict[str, object]] = []
    truth = primitives.TruthTable()
    levels = np.linspace(-0.55, 0.7, SLICES, dtype=np.float32)
    for number in range(patients):
        rng = primitives.make_generator(seed, "lumiere", number)
        patient = f"Patient-{number + 1:03d}"
        head = anatomy.draw_brain(rng, SHAPE, levels)
        brain_mask = head.inside > 0.5
        healthy_volumes = {s: anatomy.render_contrast(head, s) for s in SEQUENCES}
        side = 1 if rng.random() < 0.5 else -1
        tumour_centre = (float(rng.uniform(-0.22, 0.26)), side * float(rng.uniform(0.3, 0.36)))
        wobble = primitives.radius_wobble(head.grid, tumour_centre, rng, 0.14, (2, 3, 5))
        depth_squared = (0.5 * levels)[:, None, None] ** 2
        reach = np.sqrt((primitives.elliptical_distance(head.grid, tumour_centre) / wobble)[None] ** 2 + 0.3 * depth_squared)
        residual_angle = rng.uniform(0, 2 * np.pi)
        residual_centre = (tumour_centre[0] + 0.13 * np.sin(residual_angle), tumour_centre[1] + 0.13 * np.cos(residual_angle))
        residual_reach = np.sqrt(
            (primitives.elliptical_distance(head.grid, residual_centre) / wobble)[None] ** 2 + 0.3 * depth_squared
        )
        vessel_order = _order_vessels(rng)
        axes = {s: AXIS_CODES[rng.integers(len(AXIS_CODES))] for s in SEQUENCES}
        oblique, scaled = float(rng.choice([0.0, 0.0, 0.08])), rng.random(4) < 0.3
        cavity = 0.0
        for week in sample_course(rng):
            radius = TUMOUR_RADII[week.size] * rng.uniform(0.97, 1.03)
            tumour_reach = residual_reach if week.size == 1 else reach
            if week.rating.startswith("Post-Op"):
                cavity = 0.25
            visit = folder / f"Imaging/{patient}/{week.name}"
            for sequence, is_scaled in zip(SEQUENCES, scaled, strict=True):
                image = healthy_volumes[sequence]
                if cavity:
                    image = primitives.overlay_value(
                        image,
                        head.inside * primitives.soft_threshold(1.3 * cavity - reach, 0.1),
                        anatomy.TUMOUR_INTENSITIES[sequence][2] * 0.9,
                    )
                    image = primitives.overlay_value(
                        image,
                        head.inside * primitives.soft_threshold(cavity - reach, 0.05),
                        anatomy.TISSUE_INTENSITIES[sequence][2],
                    )
                if week.size:
                    image = anatomy.add_tumour(image, head, sequence, tumour_reach, radius)
                image = _add_vessels(image, sequence, vessel_order, brain_mask, tumour_reach, radius)
                exposed = [primitives.expose(i, EXPOSURE, rng, b) for i, b in zip(image, brain_mask, strict=True)]
                image = np.clip(exposed, 0.004, 1) * brain_mask  # in the brain nothing is 0
                stored = np.rint(_orient_slices(image) * 250).astype(np.int16)
                if not week.has_images or (sequence == "T2" and not week.has_mask):
                    continue  # a visit without one of the sequences has no masks
                slope = 4.0 if is_scaled else 1.0
                native = _encode_volume(stored[::2, :, ::2] * int(4 / slope), axes[sequence], oblique, slope)
                primitives.write_file(visit / f"{sequence}.nii.gz", native)
                if week.has_mask:
                    path = f"{SEGMENTATION_FOLDER}/skull_strip/{sequence.lower()}_skull_strip.nii.gz"
                    primitives.write_file(visit / path, _encode_volume(stored * 4, REGISTERED_AXES))
                    truth.add(
                        f"Imaging/{patient}/{week.name}/{path}", lesion_size=SIZE_NAMES[week.size],
                        lesion_side="L" if side > 0 else "R", cavity="yes" if cavity else "no",
                    )  # fmt: skip
            if week.has_images and week.has_mask:
                _write_masks(visit, _label_tumour(brain_mask, tumour_reach, radius), brain_mask)
            cavity = max(cavity * 0.9, 0.18) if cavity else 0.0
            rating_row: dict[str, object] = {
                "Patient": patient, "Date": week.name, "LessThan3Months": "x" if week.name < "week-012" else None,
                "NonMeasurableLesions": None, RATING_COLUMN: week.rating, RATIONALE_COLUMN: week.rationale or None,
            }  # fmt: skip
            rating_rows += [rating_row] * (2 if rng.random() < 0.04 else 1)
        patient_rows.append({
            "Patient": patient, "Sex": str(rng.choice(["male", "female"])), "Age at surgery (years)": int(rng.integers(35, 80)),
            "Survival time (weeks)": "na" if rng.random() < 0.1 else int(rng.integers(30, 160)), "IDH (WT: wild type)": "WT",
            "MGMT qualitative": str(rng.choice(["methylated", "not methylated"])),
        })  # fmt: skip
    primitives.write_csv(folder / "LUMIERE-ExpertRating-v202211.csv", rating_rows, from_excel=True)
    primitives.write_csv(folder / "LUMIERE-Demographics_Pathology.csv", patient_rows)
    truth.write(folder)
    primitives.write_readme(folder, "LUMIERE", "NIfTI volumes below Imaging, ratings and demographics beside it.")

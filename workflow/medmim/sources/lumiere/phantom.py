"""Synthetic LUMIERE: glioblastoma MRI before and after surgery and over weeks, as NIfTI, with ratings and demographics.

Between consecutive rated weeks the enhancing tumour grows (PD), stays (SD: the same size, or still none), shrinks (PR)
or vanishes (CR).
"""

from pathlib import Path

import nibabel as nib
import numpy as np

from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.phantom_drawing.primitives import Array

SHAPE, SLICES = (64, 64), 8
SEQUENCES = ("T1", "CT1", "T2", "FLAIR")
TUMOUR_RADII = (0.0, 0.155, 0.26, 0.4)
"""Radius of the enhancing tumour at each size; each area is more than double the one before."""
SIZE_NAMES = ("none", "small", "medium", "large")
RATING_COLUMN = (
    "Rating (according to RANO, PD: Progressive disease, SD: Stable disease, PR: Partial response, "
    "CR: Complete response, Pre-Op, Post-Op)"
)
RATIONALE_COLUMN = (
    "Rating rationale (CRET: complete resection of the enhancing tumor, PRET: partial resection of the enhancing tumor, "
    "T2-Progr.: T2-Progression, L: Lesion)"
)
AXIS_CODES = (("R", "A", "S"), ("L", "P", "S"), ("L", "A", "S"), ("R", "S", "P"))


def _rate_change(before: int, after: int) -> str:
    """RANO rating of a change of size."""
    if after == before:
        return "SD"
    return "PD" if after > before else ("CR" if after == 0 else "PR")


def sample_course(rng: np.random.Generator) -> list[tuple[str, str, str, int]]:
    """Weeks of one patient: folder name, rating, rationale, size of the enhancing tumour."""
    is_complete_resection = bool(rng.random() < 0.5)
    is_same_week = bool(rng.random() < 0.5)
    weeks = [("week-000-1" if is_same_week else "week-000", "Pre-Op", "", int(rng.integers(2, 4)))]
    size = 0 if is_complete_resection else 1
    weeks.append(("week-000-2" if is_same_week else "week-002", "Post-Op", "CRET" if is_complete_resection else "PRET", size))
    week = 2
    for _ in range(int(rng.integers(3, 6))):
        week += int(rng.integers(6, 15))
        sizes_by_rating: dict[str, list[int]] = {}
        for new_size in range(4):
            sizes_by_rating.setdefault(_rate_change(size, new_size), []).append(new_size)
        names = sorted(sizes_by_rating)
        odds = np.asarray([{"PD": 1.0, "SD": 0.7, "PR": 5.0, "CR": 1.1}[n] for n in names])
        new_size = int(rng.choice(sizes_by_rating[names[rng.choice(len(names), p=odds / odds.sum())]]))
        weeks.append((f"week-{week:03d}", _rate_change(size, new_size), "", new_size))
        size = new_size
    return weeks


def _write_volume(path: Path, image: Array, axes: tuple[str, ...], oblique: float, scaled: bool) -> None:
    """Write slices (front up, the patient's left on the right) as NIfTI with the given axis codes."""
    voxels = image[:, ::-1, ::-1].transpose(2, 1, 0)  # to right, front, up
    affine = np.diag([220 / SHAPE[1], 220 / SHAPE[0], 14.0, 1.0])
    c, s = np.cos(oblique), np.sin(oblique)
    affine = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ affine
    affine[:3, 3] = -affine[:3, :3] @ (np.array([*SHAPE, SLICES]) / 2)
    stored = np.rint(np.clip(voxels, 0, 1) * 250).astype(np.int16) * (1 if scaled else 4)
    volume = nib.Nifti1Image(stored, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    volume = volume.as_reoriented(turn)
    volume.header["descrip"] = b"SYNTHETIC phantom: no patient, not for diagnosis"
    volume.header.set_xyzt_units("mm", "sec")
    if scaled:
        volume.header.set_slope_inter(4.0, 0.0)
    primitives.write_file(path, primitives.compress_gzip(volume.to_bytes()))


def write_cohort(folder: Path, *, patients: int, seed: int) -> None:
    """Write `Imaging/Patient-XXX/week-YYY/*.nii.gz` and the two tables."""
    rating_rows: list[dict[str, object]] = []
    patient_rows: list[dict[str, object]] = []
    truth = primitives.TruthTable()
    levels = np.linspace(-0.55, 0.7, SLICES, dtype=np.float32)
    for number in range(patients):
        rng = primitives.make_generator(seed, "lumiere", number)
        patient = f"Patient-{number + 1:03d}"
        head = anatomy.draw_brain(rng, SHAPE, levels)
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
        axes = {s: AXIS_CODES[rng.integers(len(AXIS_CODES))] for s in SEQUENCES}
        oblique, scaled = float(rng.choice([0.0, 0.0, 0.08])), rng.random(4) < 0.3
        cavity = 0.0
        for week, rating, rationale, size in sample_course(rng):
            radius = TUMOUR_RADII[size] * rng.uniform(0.97, 1.03)
            if rating == "Post-Op":
                cavity = 0.25
            for sequence, slope in zip(SEQUENCES, scaled, strict=True):
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
                if size:
                    image = anatomy.add_tumour(image, head, sequence, residual_reach if size == 1 else reach, radius)
                noise = np.stack([primitives.smooth_noise(rng, SHAPE, 24)] * SLICES) * 0.015
                path = f"Imaging/{patient}/{week}/{sequence}.nii.gz"
                _write_volume(folder / path, image * rng.uniform(0.95, 1.0) + noise, axes[sequence], oblique, bool(slope))
                truth.add(
                    path, lesion_size=SIZE_NAMES[size], lesion_side="L" if side > 0 else "R", cavity="yes" if cavity else "no"
                )
            cavity = max(cavity * 0.9, 0.18) if cavity else 0.0
            rating_rows.append({
                "Patient": patient, "Date": week, "LessThan3M": "x" if week < "week-012" else None, "NonMeasurableLesions": None,
                RATING_COLUMN: rating, RATIONALE_COLUMN: rationale or None,
            })  # fmt: skip
        patient_rows.append({
            "Patient": patient, "Survival time (weeks)": int(rng.integers(30, 160)), "Sex": str(rng.choice(["male", "female"])),
            "Age at surgery (years)": int(rng.integers(35, 80)), "IDH (WT: wild type)": "WT",
            "MGMT qualitative": str(rng.choice(["methylated", "not methylated"])),
        })  # fmt: skip
    primitives.write_csv(folder / "LUMIERE-ExpertRating-v202211.csv", rating_rows)
    primitives.write_csv(folder / "LUMIERE-Demographics_Pathology.csv", patient_rows)
    truth.write(folder)
    primitives.write_readme(folder, "LUMIERE", "NIfTI volumes below Imaging, ratings and demographics beside it.")

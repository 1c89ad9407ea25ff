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
RADII = (0.0, 0.155, 0.26, 0.4)
"""Radius of the enhancing tumour at each size; each area is more than double the one before."""
SIZES = ("none", "small", "medium", "large")
RATING = (
    "Rating (according to RANO, PD: Progressive disease, SD: Stable disease, PR: Partial response, "
    "CR: Complete response, Pre-Op, Post-Op)"
)
RATIONALE = (
    "Rating rationale (CRET: complete resection of the enhancing tumor, PRET: partial resection of the enhancing tumor, "
    "T2-Progr.: T2-Progression, L: Lesion)"
)
AXES = (("R", "A", "S"), ("L", "P", "S"), ("L", "A", "S"), ("R", "S", "P"))


def _rating(before: int, after: int) -> str:
    """RANO rating of a change of size."""
    if after == before:
        return "SD"
    return "PD" if after > before else ("CR" if after == 0 else "PR")


def course(rng: np.random.Generator) -> list[tuple[str, str, str, int]]:
    """Weeks of one patient: folder name, rating, rationale, size of the enhancing tumour."""
    complete = bool(rng.random() < 0.5)
    same_week = bool(rng.random() < 0.5)
    weeks = [("week-000-1" if same_week else "week-000", "Pre-Op", "", int(rng.integers(2, 4)))]
    size = 0 if complete else 1
    weeks.append(("week-000-2" if same_week else "week-002", "Post-Op", "CRET" if complete else "PRET", size))
    week = 2
    for _ in range(int(rng.integers(3, 6))):
        week += int(rng.integers(6, 15))
        possible: dict[str, list[int]] = {}
        for new in range(4):
            possible.setdefault(_rating(size, new), []).append(new)
        names = sorted(possible)
        odds = np.asarray([{"PD": 1.0, "SD": 0.7, "PR": 5.0, "CR": 1.1}[n] for n in names])
        new = int(rng.choice(possible[names[rng.choice(len(names), p=odds / odds.sum())]]))
        weeks.append((f"week-{week:03d}", _rating(size, new), "", new))
        size = new
    return weeks


def _save(path: Path, image: Array, axes: tuple[str, ...], oblique: float, scaled: bool) -> None:
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
    primitives.put(path, primitives.gz(volume.to_bytes()))


def write(folder: Path, *, patients: int, seed: int) -> None:
    """Write `Imaging/Patient-XXX/week-YYY/*.nii.gz` and the two tables."""
    ratings: list[dict[str, object]] = []
    people: list[dict[str, object]] = []
    truth = primitives.Truth()
    levels = np.linspace(-0.55, 0.7, SLICES, dtype=np.float32)
    for number in range(patients):
        rng = primitives.generator(seed, "lumiere", number)
        patient = f"Patient-{number + 1:03d}"
        head = anatomy.brain(rng, SHAPE, levels)
        plain = {s: anatomy.weigh(head, s) for s in SEQUENCES}
        side = 1 if rng.random() < 0.5 else -1
        bed = (float(rng.uniform(-0.22, 0.26)), side * float(rng.uniform(0.3, 0.36)))
        wave = primitives.wobble(head.at, bed, rng, 0.14, (2, 3, 5))
        deep = (0.5 * levels)[:, None, None] ** 2
        reach = np.sqrt((primitives.distance(head.at, bed) / wave)[None] ** 2 + 0.3 * deep)
        towards = rng.uniform(0, 2 * np.pi)
        rest = (bed[0] + 0.13 * np.sin(towards), bed[1] + 0.13 * np.cos(towards))
        aside = np.sqrt((primitives.distance(head.at, rest) / wave)[None] ** 2 + 0.3 * deep)
        axes = {s: AXES[rng.integers(len(AXES))] for s in SEQUENCES}
        oblique, scaled = float(rng.choice([0.0, 0.0, 0.08])), rng.random(4) < 0.3
        cavity = 0.0
        for week, rating, rationale, size in course(rng):
            radius = RADII[size] * rng.uniform(0.97, 1.03)
            if rating == "Post-Op":
                cavity = 0.25
            for sequence, slope in zip(SEQUENCES, scaled, strict=True):
                image = plain[sequence]
                if cavity:
                    image = primitives.over(
                        image, head.inside * primitives.ramp(1.3 * cavity - reach, 0.1), anatomy.TUMOUR[sequence][2] * 0.9
                    )
                    image = primitives.over(
                        image, head.inside * primitives.ramp(cavity - reach, 0.05), anatomy.CONTRAST[sequence][2]
                    )
                if size:
                    image = anatomy.tumour(image, head, sequence, aside if size == 1 else reach, radius)
                noise = np.stack([primitives.texture(rng, SHAPE, 24)] * SLICES) * 0.015
                path = f"Imaging/{patient}/{week}/{sequence}.nii.gz"
                _save(folder / path, image * rng.uniform(0.95, 1.0) + noise, axes[sequence], oblique, bool(slope))
                truth.add(path, lesion_size=SIZES[size], lesion_side="L" if side > 0 else "R", cavity="yes" if cavity else "no")
            cavity = max(cavity * 0.9, 0.18) if cavity else 0.0
            ratings.append({
                "Patient": patient, "Date": week, "LessThan3M": "x" if week < "week-012" else None, "NonMeasurableLesions": None,
                RATING: rating, RATIONALE: rationale or None,
            })  # fmt: skip
        people.append({
            "Patient": patient, "Survival time (weeks)": int(rng.integers(30, 160)), "Sex": str(rng.choice(["male", "female"])),
            "Age at surgery (years)": int(rng.integers(35, 80)), "IDH (WT: wild type)": "WT",
            "MGMT qualitative": str(rng.choice(["methylated", "not methylated"])),
        })  # fmt: skip
    primitives.put_csv(folder / "LUMIERE-ExpertRating-v202211.csv", ratings)
    primitives.put_csv(folder / "LUMIERE-Demographics_Pathology.csv", people)
    truth.write(folder)
    primitives.put_readme(folder, "LUMIERE", "NIfTI volumes below Imaging, ratings and demographics beside it.")

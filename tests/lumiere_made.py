"""A small folder in LUMIERE's layout, with the owner's headers, codes and oddities; all ids and readings are made up."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, SPACING = (32, 24, 30), 2.0  # right to left x back to front x bottom to top; mm
TUMOUR_CENTRE = (20, 9, 15)
ATLAS = "DeepBraTumIA-segmentation/atlas"
MASK = f"{ATLAS}/segmentation/seg_mask.nii.gz"
SEQUENCES = ("CT1", "T1", "T2", "FLAIR")
RATINGS_FILE = "LUMIERE-ExpertRating-v202211.csv"
HEADER = (
    "Patient",
    "Date",
    "LessThan3Months",
    "NonMeasurableLesions",
    "Rating (according to RANO, PD: Progressive disease, SD: Stable disease, PR: Partial response, CR: Complete response, "
    "Pre-Op: Pre-Operative, Post-Op: Post-Operative)",
    "Rating rationale (CRET: complete resection of the enhancing tumor, PRET: partial resection of the enhancing tumor, "
    "T2-Progr.: T2-Progression, L: Lesion)",
)
Row = tuple[str, str, str, str]
COURSE: tuple[tuple[Row, int | None], ...] = (
    (("Patient-001", "week-000-1", "Pre-Op", ""), 5),
    (("Patient-001", "week-000-2", "Post-Op ", "PRET "), 3),
    (("Patient-001", "week-013", "SD", "Target L.: 13mm x 26mm"), 3),
    (("Patient-001", "week-023", "PR", ""), 2),
    (("Patient-001", "week-045", "PD", "T2-Progr."), 2),
    (("Patient-001", "week-049", "PD", ""), 5),
    (("Patient-001", "week-060", "PR", "Target L. 1: 12mm x 11mm"), 3),
    (("Patient-001", "week-070", "PR ", ""), 3),
    (("Patient-001", "week-080", "CR", ""), 0),
    (("Patient-002", "week-000-1", "Pre-Op", ""), 5),
    (("Patient-002", "week-000-2", "Post-Op", "CRET"), 0),
    (("Patient-002", "week-019-1", "Pre-Op", ""), 4),
    (("Patient-002", "week-019-2", "Post-Op ", "PRET, second surgery"), 2),
    (("Patient-002", "week-037", "PD", "New L."), 4),
    (("Patient-002", "week-047", "Post-Op/PD", ""), 2),
    (("Patient-002", "week-060", "SD", ""), 2),
    (("Patient-002", "week-070", "PD", "another part of the brain"), 0),
    (("Patient-003", "week-000-1", "Pre-Op", ""), 4),
    (("Patient-003", "week-000-2", "Post-Op", "CRET"), 0),
    (("Patient-003", "week-014", "SD", ""), 0),
    (("Patient-003", "week-014", "SD", ""), 0),
    (("Patient-003", "week-027", "None", ""), 0),
    (("Patient-003", "week-040-2", "PR", ""), 2),
    (("Patient-003", "week-052", "PD", "its images lack T2"), None),
    (("Patient-003", "week-061", "SD", ""), 4),
    (("Patient-004", "week-000", "Pre-Op", ""), 5),
    (("Patient-004", "week-001", "Post-Op", ""), 0),
    (("Patient-004", "week-010", "PD", ""), 3),
    (("Patient-004", "week-099", "PD", "no images"), None),
)
"""Rows of the ratings table, each with the radius of the tumour in voxels; None where there is no mask."""
RESPONSES = {
    ("Patient-001", "000-2", "013"), ("Patient-001", "000-2", "023"), ("Patient-001", "045", "049"),
    ("Patient-001", "049", "060"), ("Patient-001", "049", "070"), ("Patient-001", "049", "080"),
    ("Patient-002", "019-2", "037"), ("Patient-002", "047", "060"), ("Patient-003", "000-2", "014"),
    ("Patient-004", "001", "010"),
}  # fmt: skip
"""Pairs of weeks that type C may ask about: the scan that RANO rates against, and the one rated."""
OPERATIONS = {
    ("Patient-001", "000-1", "000-2"), ("Patient-002", "000-1", "000-2"), ("Patient-002", "019-1", "019-2"),
    ("Patient-003", "000-1", "000-2"),
}  # fmt: skip
"""Pairs of weeks that type B may ask about."""


def write_volume(path: Path, values: np.ndarray, spacing: float = SPACING, shift: float = 0.0, axes: str = "LAS") -> None:
    """Write a volume, right to left x back to front x bottom to top, with the given axis codes."""
    affine = np.diag([spacing] * 3 + [1])
    affine[:3, 3] = -spacing * np.array(values.shape) / 2
    affine[1, 3] += shift
    image = nib.Nifti1Image(values, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image.as_reoriented(turn), path)


def write_visit(folder: Path, radius: int | None, seed: int, shift: float = 0.0) -> None:
    """Write a visit's volumes; without a radius only native ones, and no T2."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE)
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip((x, y, z), TUMOUR_CENTRE, strict=True)))
    brain = ((x - 16) / 14) ** 2 + ((y - 12) / 11) ** 2 + ((z - 15) / 13) ** 2 < 1
    tumour = distance <= (radius or -1)
    core = (distance <= 1) & tumour & ((radius or 0) > 3)
    for sequence in SEQUENCES:
        values = (brain * rng.integers(300, 400, SHAPE) + 500 * (tumour & ~core)).astype(np.int16)
        if radius is not None or sequence != "T2":  # on its own grid, with fewer slices
            write_volume(folder / f"{sequence}.nii.gz", values[:, ::2], 3.0, shift=7.0 * SEQUENCES.index(sequence), axes="PIR")
        if radius is not None:
            write_volume(folder / ATLAS / f"skull_strip/{sequence.lower()}_skull_strip.nii.gz", values, shift=shift)
    if radius is not None:
        labels = np.where(core, 2, np.where(tumour, 1, np.where(distance <= 1.3 * radius, 3, 0))).astype(np.uint8)
        labels[14:17, 2:4, 14:17] = 3  # oedema far from the tumour, which is not what a slice is chosen by
        write_volume(folder / MASK, labels, shift=shift)
        volumes = {
            name: float((labels == n).sum() * SPACING**3)
            for n, name in enumerate(("Enhancing_Core", "Necrotic_NonEnhancing", "Edema_Compartment"), 1)
        }
        (folder / MASK).with_name("measured_volumes_in_mm3.json").write_text(json.dumps(volumes), encoding="utf-8")


def write_ratings(root: Path, rows: Iterable[Row]) -> None:
    """Write the ratings table as its owner has: a byte order mark, CRLF."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / RATINGS_FILE).open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows((patient, week, "", "", rating, rationale) for patient, week, rating, rationale in rows)


def write_folder(root: Path, course: Iterable[tuple[Row, int | None]] = COURSE) -> Path:
    """Write the whole folder; a visit rated for having no images has none."""
    course = tuple(course)
    for seed, ((patient, week, _, rationale), radius) in enumerate(course):
        if rationale != "no images":
            write_visit(root / "Imaging" / patient / week, radius, seed)
    write_ratings(root, (row for row, _ in course))
    return root

"""Synthetic MS-CXR-T: pairs of chest radiographs with progression labels, in the tree of MIMIC-CXR-JPG."""

from pathlib import Path

import numpy as np

from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.phantom_drawing.primitives import Array

SHAPE = (192, 176)
EXTENT = {"mild": 0.4, "moderate": 0.68, "severe": 1.0}
"""How much of its largest size a finding has."""
SEVERITIES = tuple(EXTENT)


def progression(before: int, after: int) -> str:
    """Label of a change between two severities."""
    return "stable" if after == before else ("worsening" if after > before else "improving")


def _course(rng: np.random.Generator, studies: int) -> list[int]:
    """Severity of one finding in each study; improving, stable and worsening about as often."""
    levels = [int(rng.integers(3))]
    for _ in range(studies - 1):
        odds = [0.55 if new == levels[-1] else 0.5 if levels[-1] != 1 else 1.0 for new in range(3)]
        levels.append(int(rng.choice(3, p=np.divide(odds, sum(odds)))))
    return levels


def picture(frame: anatomy.Chest, found: dict[str, tuple[float, str]], seed: int, rng: np.random.Generator) -> Array:
    """Radiograph of a chest with findings: extent and side of each."""
    image = anatomy.radiograph(frame, rng)
    for finding, (extent, side) in sorted(found.items()):
        image = anatomy.afflict(image, frame, finding, extent * float(rng.uniform(0.97, 1.03)), side, seed)
    down, right = (int(i) for i in rng.integers(0, 7, 2))
    moved = np.pad(image, 3, "edge")[down : down + image.shape[0], right : right + image.shape[1]]
    return moved * float(rng.uniform(0.94, 1.0))


def write(folder: Path, *, patients: int, seed: int) -> None:
    """Write `files/pXX/p<subject>/s<study>/<dicom>.jpg` and the table of pairs."""
    pairs: list[dict[str, object]] = []
    truth = primitives.Truth()
    for number in range(patients):
        rng = primitives.generator(seed, "ms_cxr_t", number)
        subject = f"{10 + rng.integers(10)}{number + 1:04d}{rng.integers(100):02d}"
        frame = anatomy.chest(rng, SHAPE)
        studies = 2 if rng.random() < 0.5 else 3
        names = [str(f) for f in rng.choice(anatomy.FINDINGS, 1 if rng.random() < 0.75 else 2, replace=False)]
        sides = dict(zip(names, rng.choice(["right", "left"], len(names)), strict=True))
        if "consolidation" in names:  # it fills the right lower lung: keep the other out of its way
            sides = dict.fromkeys(names, "left")
        if "pneumonia" in names:
            sides = dict.fromkeys(names, "right")
        levels = {name: _course(rng, studies) for name in names}
        shape, previous = int(rng.integers(2**31)), None
        for visit in range(studies):
            study = f"5{number + 1:04d}{visit}{rng.integers(100):02d}"
            dicom = "-".join(f"{i:08x}" for i in rng.integers(0, 2**32, 5))
            path = f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
            found = {n: (EXTENT[SEVERITIES[levels[n][visit]]], str(sides[n])) for n in names}
            primitives.put(folder / path, primitives.jpeg(picture(frame, found, shape, rng)))
            truth.add(path, **{f"severity:{n}": SEVERITIES[levels[n][visit]] for n in names})
            if previous:
                pairs.append({
                    "dicom_id": dicom, "previous_dicom_id": previous[1], "study_id": study, "previous_study_id": previous[0],
                    "subject_id": subject, "split": "test",
                    **{
                        f"{n}_progression": progression(*levels[n][visit - 1 : visit + 1]) if n in names else None
                        for n in anatomy.FINDINGS
                    },
                })  # fmt: skip
            previous = (study, dicom)
    primitives.put_csv(folder / "MS_CXR_T_temporal_image_classification_v1.0.0.csv", pairs)
    truth.write(folder)
    primitives.put_readme(folder, "MS-CXR-T 1.0.0 and MIMIC-CXR-JPG", "Radiographs below files, the table of pairs beside it.")

"""Synthetic MS-CXR-T: pairs of chest radiographs with progression labels, in the tree of MIMIC-CXR-JPG."""

from pathlib import Path

import numpy as np

from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.phantom_drawing.primitives import Array

SHAPE = (112, 104)
EXPOSURE = ((0.0, 0.0), (0.05, 0.04), (0.1, 0.2), (0.35, 0.42), (0.5, 0.54), (0.8, 0.68), (0.95, 0.84), (1.0, 0.98))
"""Share of a radiograph's pixels, and the intensity up to which they reach."""
SEVERITY_EXTENTS = {"mild": 0.4, "moderate": 0.68, "severe": 1.0}
"""How much of its largest size a finding has."""
SEVERITIES = tuple(SEVERITY_EXTENTS)


def name_progression(before: int, after: int) -> str:
    """Label of a change between two severities."""
    return "stable" if after == before else ("worsening" if after > before else "improving")


def _sample_course(rng: np.random.Generator, studies: int) -> list[int]:
    """Severity of one finding in each study; improving, stable and worsening about as often."""
    levels = [int(rng.integers(3))]
    for _ in range(studies - 1):
        odds = [0.55 if new == levels[-1] else 0.5 if levels[-1] != 1 else 1.0 for new in range(3)]
        levels.append(int(rng.choice(3, p=np.divide(odds, sum(odds)))))
    return levels


QUALITY_ODDS = {"one_expert": 0.6, "multiple_experts": 0.32, "disagreement": 0.08}
"""How often a label is of each quality."""


def label_change(before: int, after: int, rng: np.random.Generator) -> tuple[str, str]:
    """Label of a change and its quality; where the experts disagree, the label is not to be relied on."""
    quality = str(rng.choice(list(QUALITY_ODDS), p=list(QUALITY_ODDS.values())))
    guess = str(rng.choice(("improving", "stable", "worsening")))
    return guess if quality == "disagreement" else name_progression(before, after), quality


def draw_radiograph(frame: anatomy.Chest, findings: dict[str, tuple[float, str]], seed: int, rng: np.random.Generator) -> Array:
    """Radiograph of a chest with findings: extent and side of each."""
    image = anatomy.render_radiograph(frame, rng)
    for finding, (extent, side) in sorted(findings.items()):
        image = anatomy.add_finding(image, frame, finding, extent * float(rng.uniform(0.97, 1.03)), side, seed)
    down, right = (int(i) for i in rng.integers(0, 5, 2))
    shifted = np.pad(image, 2, "edge")[down : down + image.shape[0], right : right + image.shape[1]]
    return primitives.expose(shifted, EXPOSURE, rng)


def write_cohort(folder: Path, *, patients: int, seed: int) -> None:
    """Write `files/pXX/p<subject>/s<study>/<dicom>.jpg` and the table of pairs."""
    pairs: list[dict[str, object]] = []
    truth = primitives.TruthTable()
    for number in range(patients):
        rng = primitives.make_generator(seed, "ms_cxr_t", number)
        label_rng = primitives.make_generator(seed, "ms_cxr_t labels", number)
        subject = f"{10 + rng.integers(10)}{number + 1:04d}{rng.integers(100):02d}"
        frame = anatomy.draw_chest(rng, SHAPE)
        studies = 2 if rng.random() < 0.5 else 3
        finding_names = [str(f) for f in rng.choice(anatomy.FINDINGS, 1 if rng.random() < 0.75 else 2, replace=False)]
        sides = dict(zip(finding_names, rng.choice(["right", "left"], len(finding_names)), strict=True))
        if "consolidation" in finding_names:  # it fills the right lower lung: keep the other out of its way
            sides = dict.fromkeys(finding_names, "left")
        if "pneumonia" in finding_names:
            sides = dict.fromkeys(finding_names, "right")
        levels = {name: _sample_course(rng, studies) for name in finding_names}
        finding_seed, previous = int(rng.integers(2**31)), None
        for visit in range(studies):
            study = f"5{number + 1:04d}{visit}{rng.integers(100):02d}"
            dicom_id = "-".join(f"{i:08x}" for i in rng.integers(0, 2**32, 5))
            path = f"files/p{subject[:2]}/p{subject}/s{study}/{dicom_id}.jpg"
            findings = {n: (SEVERITY_EXTENTS[SEVERITIES[levels[n][visit]]], str(sides[n])) for n in finding_names}
            primitives.write_file(folder / path, primitives.encode_jpeg(draw_radiograph(frame, findings, finding_seed, rng)))
            truth.add(path, **{f"severity:{n}": SEVERITIES[levels[n][visit]] for n in finding_names})
            if previous:
                pair: dict[str, object] = {
                    "dicom_id": path.removeprefix("files/").removesuffix(".jpg"), "previous_dicom_id": previous[1],
                    "study_id": study, "previous_study_id": previous[0], "subject_id": subject, "split": "test",
                }  # fmt: skip
                for name in anatomy.FINDINGS:
                    label = (
                        label_change(levels[name][visit - 1], levels[name][visit], label_rng)
                        if name in finding_names
                        else ("", "")
                    )
                    pair |= {f"{name}_progression": label[0], f"{name}_label_quality": label[1]}
                pairs.append(pair)
            previous = (study, path.removeprefix("files/").removesuffix(".jpg"))
    primitives.write_csv(folder / "MS_CXR_T_temporal_image_classification_v1.0.0.csv", pairs)
    truth.write(folder)
    primitives.write_readme(folder, "MS-CXR-T 1.0.0 and MIMIC-CXR-JPG", "Radiographs below files, the table of pairs beside it.")

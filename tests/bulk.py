"""Synthetic findings in bulk: images and findings tables as the adapters write them, of images that have no pixels.

What the tables say is drawn at random and as uneven as owners' tables are (most breasts are negative, most tumours
progress, a pneumothorax is mostly stable), so that a question whose answer shows in its words can be told from one whose
answer does not. Numbers are made up.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from medmim.sources.base import Fact, Picture, SourceContents, TableBuilder
from medmim.tables import table_io

FULL_PATIENTS = {"embed": 4000, "lumiere": 300, "ms_cxr_t": 1600, "pmc": 50_000, "vqa_rad": 315, "odir": 3500}
"""Patients (of PMC papers, of VQA-RAD images) that yield the paper's counts."""
EVEN_SHARE = 0.35
"""Share of breasts whose assessment is drawn evenly: real ones are rarer, and more are needed for the same questions."""
BIRADS = dict(zip("NBAPSMK", (0.55, 0.28, 0.1, 0.04, 0.02, 0.007, 0.003), strict=True))
RECALL_OUTCOMES = dict(zip("NBPSM", (0.36, 0.3, 0.08, 0.21, 0.05), strict=True))
"""What a diagnostic exam makes of a recalled breast."""
RANO = {"PD": 0.45, "SD": 0.3, "PR": 0.15, "CR": 0.1}
QUALITIES = {"one_expert": 0.6, "multiple_experts": 0.32, "disagreement": 0.08}
CHANGES = ("improving", "stable", "worsening")
CHANGE_RATES = {
    "consolidation": (0.15, 0.42, 0.43),
    "edema": (0.31, 0.26, 0.43),
    "pleural_effusion": (0.19, 0.5, 0.31),
    "pneumonia": (0.08, 0.24, 0.68),
    "pneumothorax": (0.2, 0.7, 0.1),
}
DIAGNOSES = ("normal fundus", "moderate non proliferative retinopathy", "mild nonproliferative retinopathy", "cataract",
        "pathological myopia", "glaucoma", "macular epiretinal membrane", "drusen", "dry age-related macular degeneration",
        "hypertensive retinopathy", "wet age-related macular degeneration", "vitreous degeneration", "laser spot",
        "suspected glaucoma", "myopia retinopathy", "refractive media opacity", "spotted membranous change",
        "branch retinal vein occlusion", "severe nonproliferative retinopathy", "retinitis pigmentosa")  # fmt: skip
YES_RATES = {
    "Is there a pneumothorax?": 0.1, "Is the heart enlarged?": 0.4, "Is there evidence of a pleural effusion?": 0.35,
    "Is a mass seen?": 0.5, "Is there free air under the diaphragm?": 0.08, "Are the ribs intact?": 0.8,
    "Is the trachea midline?": 0.75, "Is there a fracture?": 0.15, "Was contrast given?": 0.6, "Is this an axial slice?": 0.55,
    "Is there bowel obstruction?": 0.3, "Are the kidneys normal in size?": 0.7, "Is there midline shift?": 0.25,
    "Is the mass calcified?": 0.2, "Are both lungs clear?": 0.45, "Is the aorta enlarged?": 0.3,
}  # fmt: skip
OPEN_QUESTIONS = {
    "What plane is this?": ("axial", "coronal", "sagittal", "PA"),
    "Which organ system is shown?": ("chest", "gastrointestinal", "nervous system", "cardiovascular"),
    "Where is the lesion?": ("right lower lobe", "left hemisphere", "liver", "right kidney", "mediastinum"),
    "What modality was used?": ("X-ray", "CT", "MRI"),
}
DOMAINS = {"chest_xray": 0.15, "mri": 0.17, "histology": 0.3, "gross": 0.13, "ct_scan": 0.25}
KINDS = {
    "chest_xray": ("chest radiograph", ("an opacity in the lower zone", "a widened mediastinum", "blunting of an angle")),
    "mri": ("MRI", ("a ring-enhancing lesion", "restricted diffusion", "a high signal on T2")),
    "histology": ("tissue section", ("sheets of atypical cells", "palisading nuclei", "dense lymphocytic infiltrates")),
    "gross": ("specimen", ("a well circumscribed mass", "a haemorrhagic cut surface", "a grey-white nodule")),
    "ct_scan": ("CT scan", ("a hypodense lesion", "thickening of the wall", "enlarged lymph nodes")),
}
PLACES = ("the right side", "the left side", "the centre", "the upper third", "the lower third", "the periphery")
QUESTION_TEMPLATES = ("What does the {kind} show?", "What is the main finding in this {kind}?", "Where is the finding located?",
         "How large is the finding?", "Are there signs of inflammation?", "What do the markers point to?",
         "What could explain {finding}?", "Which technique was used to obtain this {kind}?",
         "How does the surrounding tissue look?", "Does the {kind} suggest a malignant process?")  # fmt: skip


@dataclass(frozen=True)
class Cohort:
    """One source's rows of the images and findings tables."""

    source: str
    images: list[dict[str, Any]]
    findings: list[dict[str, Any]]

    def write_tables(self, folder: Path) -> dict[str, Path]:
        """Both tables, as files named as in a run."""
        paths = {name: folder / f"{self.source}.{name}.parquet" for name in ("images", "findings")}
        for name, path in paths.items():
            table_io.write_table(path, name, getattr(self, name))
        return paths


def _draw_choices(rng: np.random.Generator, weights: dict[str, float], count: int) -> list[str]:
    names = list(weights)
    return [names[i] for i in rng.choice(len(names), count, p=np.array([*weights.values()]) / sum(weights.values()))]


def _draw_embed(plan: SourceContents, patients: int, rng: np.random.Generator) -> None:
    even = dict.fromkeys(BIRADS, EVEN_SHARE / len(BIRADS))
    course = {letter: (1 - EVEN_SHARE) * share + even[letter] for letter, share in BIRADS.items()}
    for p in range(patients):
        visits = int(rng.integers(3, 6))
        days = np.concatenate([[0], np.cumsum(rng.integers(300, 460, visits - 1))])
        letters = {side: _draw_choices(rng, course, visits) for side in "LR"}
        outcomes = {
            side: [_draw_choices(rng, RECALL_OUTCOMES, 1)[0] if letter == "A" else letter for letter in letters[side]]
            for side in "LR"
        }
        for visit, day in enumerate(days):
            study = f"{p}{visit:02}"
            for side in "LR":
                for view in ("CC", "MLO"):
                    stem = f"cohort_1/{p}/{study}/{side}{view}"
                    picture = _make_picture(f"images/{stem}.dcm", p, study, int(day), view, side, "mammography", f"{stem}.png")
                    plan.pictures.append(picture)
                    plan.add_facts(picture, "tables/metadata.csv", len(plan.pictures), {"view": view, "laterality": side})
                    assessments = {"birads": letters[side][visit], "outcome": outcomes[side][visit]}
                    plan.add_facts(picture, "tables/clinical.csv", len(plan.pictures), assessments)


def _draw_lumiere(plan: SourceContents, patients: int, rng: np.random.Generator) -> None:
    for p in range(patients):
        patient = f"Patient-{p:03}"
        ratings = ["Pre-Op", "Post-Op", *_draw_choices(rng, RANO, int(rng.integers(4, 9)))]
        areas = [2000.0, 1000.0]  # as the ratings say; a partial response to a tumour that is gone is not asked
        for rating in ratings[2:]:
            areas.append({"PD": max(2 * areas[-1], 1000.0), "SD": areas[-1], "PR": areas[-1] / 2, "CR": 10.0}[rating])
        for week, rating in enumerate(ratings):
            study = f"{patient}/week-{week:03}"
            for sequence in ("CT1", "T1", "T2", "FLAIR"):
                path = f"{sequence.lower()}_LUMIERE_images/{patient}/slice_80/week_{week:03}.png"
                picture = _make_picture(f"Imaging/{study}/{sequence}.nii.gz", patient, study, 7 * week, sequence, "", "MRI", path)
                plan.pictures.append(picture)
                plan.add_facts(picture, picture.file, 1, {"sequence": sequence, "week": f"{week:03}"})
                if sequence == "CT1":
                    plan.add_facts(picture, "seg_mask.nii.gz", 1, {"enhancing_mm2": str(areas[week])})
            facts = {"rano": rating}
            if rating in RANO:
                facts["reference"] = f"{week - 1:03}"
            if rating == "Post-Op":
                facts["resection"] = _draw_choices(rng, {"complete resection": 0.6, "partial resection": 0.4}, 1)[0]
            row = len(plan.pictures) // 4
            for name, value in facts.items():
                plan.facts.append(Fact(name=name, value=value, patient=patient, study=study, table="ratings.csv", row=row))


def _draw_ms_cxr_t(plan: SourceContents, patients: int, rng: np.random.Generator) -> None:
    row = 0
    for p in range(patients):
        subject = str(10_000_000 + p)
        pictures = []
        for study in range(int(rng.integers(2, 4))):
            stem = f"p10/p{subject}/s{study}/{subject}-{study}"
            file = f"files/{stem}.jpg"
            pictures.append(_make_picture(file, subject, f"{subject}{study}", None, "", "", "radiography", f"{stem}.png"))
        plan.pictures += pictures
        for before, after in pairwise(pictures):
            row += 1
            for finding in rng.permutation([*CHANGE_RATES])[: int(rng.integers(1, 3))]:
                change = _draw_choices(rng, dict(zip(CHANGES, CHANGE_RATES[finding], strict=True)), 1)[0]
                facts = {"progression": change, "previous": before.file, "label_quality": _draw_choices(rng, QUALITIES, 1)[0]}
                named_facts = {f"{name}:{finding}": value for name, value in facts.items()}
                plan.add_facts(after, "table.csv", row, named_facts, other_picture=before)


def _draw_pmc(plan: SourceContents, patients: int, rng: np.random.Generator) -> None:
    domains = _draw_choices(rng, DOMAINS, patients)
    row = 0
    for p, domain in enumerate(domains):
        for figure in range(1 + (rng.random() < 0.12)):
            row += 1
            picture = _make_picture(
                f"tars/PMC{p}.tar.gz!PMC{p}/g{figure}.jpg", f"PMC{p}", f"{p}_F{figure}", None, "", "", domain, ""
            )
            plan.pictures.append(picture)
            plan.add_facts(picture, "instruct.json", row, {"domain": domain})
            kind, signs = KINDS[domain]
            finding, place = signs[rng.integers(len(signs))], PLACES[rng.integers(len(PLACES))]
            for turn, template_index in enumerate(rng.permutation(len(QUESTION_TEMPLATES))[: int(rng.integers(2, 6))]):
                question = QUESTION_TEMPLATES[template_index].format(kind=kind, finding=finding)
                answer = (
                    f"The {kind} of case {p} shows {finding} in {place}. It measures about {rng.integers(4, 60)} mm, and the"
                    f" surrounding tissue is {('unremarkable', 'displaced', 'inflamed')[rng.integers(3)]}."
                )
                plan.add_facts(picture, "instruct.json", row, {f"qa:{turn}:question": question, f"qa:{turn}:answer": answer})


def _draw_vqa_rad(plan: SourceContents, patients: int, rng: np.random.Generator) -> None:
    question_number = 0
    for p in range(patients):
        name = f"synpic{p}"
        picture = _make_picture(f"VQA_RAD Image Folder/{name}.jpg", name, name, None, "", "", "CT", f"{name}.jpg")
        plan.pictures.append(picture)
        turns = [(q, ("yes" if rng.random() < YES_RATES[q] else "no"), "CLOSED") for q in rng.permutation([*YES_RATES])[:5]]
        turns += [(q, str(rng.choice(OPEN_QUESTIONS[q])), "OPEN") for q in rng.permutation([*OPEN_QUESTIONS])[:2]]
        for question, answer, kind in turns:
            question_number += 1
            turn = {"question": str(question), "answer": answer, "answer_type": kind}
            plan.add_facts(
                picture, "records.json", question_number, {f"qa:{question_number}:{what}": value for what, value in turn.items()}
            )


def _draw_odir(plan: SourceContents, patients: int, rng: np.random.Generator) -> None:
    diseased = np.geomspace(1, 0.05, len(DIAGNOSES) - 1)
    weights = dict(zip(DIAGNOSES, [0.45, *(0.55 * diseased / diseased.sum())], strict=True))
    for p in range(patients):
        first = _draw_choices(rng, weights, 1)[0]
        second = first if rng.random() < 0.6 else _draw_choices(rng, weights, 1)[0]
        for side, diagnosis in zip(("left", "right"), (first, second), strict=True):
            path = f"Training Images/{p}_{side}.jpg"
            picture = _make_picture(path, p, p, None, "fundus", side[0].upper(), "fundus", path)
            plan.pictures.append(picture)
            plan.add_facts(picture, "full_df.csv", p + 1, {"diagnosis": diagnosis})


def _make_picture(
    file: str, patient: object, study: object, day: int | None, view: str, side: str, modality: str, release_path: str
) -> Picture:
    return Picture(
        file=file, read_pixels=np.asarray, patient=str(patient), study=str(study), day=day, view=view, laterality=side,
        modality=modality, release_path=release_path,
    )  # fmt: skip


DRAW_FUNCTIONS: dict[str, Callable[[SourceContents, int, np.random.Generator], None]] = {
    "embed": _draw_embed, "lumiere": _draw_lumiere, "ms_cxr_t": _draw_ms_cxr_t,
    "pmc": _draw_pmc, "vqa_rad": _draw_vqa_rad, "odir": _draw_odir,
}  # fmt: skip


def draw_cohort(source: str, patients: int, seed: int = 0) -> Cohort:
    """Rows of a source's tables; the findings through the adapters' own way from what is stated to rows."""
    plan = SourceContents()
    DRAW_FUNCTIONS[source](plan, patients, np.random.default_rng([seed, *source.encode()]))
    build = TableBuilder(source, Path(), plan, 1)
    build.image_ids = {p.file: hashlib.sha256(f"{source}/{p.file}".encode()).hexdigest() for p in plan.pictures}
    images = [
        {
            "image_id": build.image_ids[p.file], "source": source, "patient_id": f"{source}/{p.patient}",
            "study_id": f"{source}/{p.study}", "day": p.day, "view": p.view, "laterality": p.laterality, "modality": p.modality,
            "width": 1, "height": 1, "bytes": b"", "thumbnail": bytes(4096), "release_path": p.release_path,
            "origin_file": p.file, "origin_sha256": build.image_ids[p.file],
        }
        for p in sorted(plan.pictures, key=lambda p: p.file)
    ]  # fmt: skip
    return Cohort(source, images, build.list_finding_rows())


def draw_cohorts(share: float = 1.0, sources: Sequence[str] = tuple(FULL_PATIENTS)) -> list[Cohort]:
    """All sources at a share of the size that yields the paper's counts."""
    return [draw_cohort(source, max(1, round(FULL_PATIENTS[source] * share))) for source in sources]

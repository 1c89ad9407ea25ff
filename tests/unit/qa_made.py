"""Small made-up images and findings tables of every source, with the findings' names that the adapters write."""

from importlib import import_module

import numpy as np
import pandas as pd

from medmim.config.source_plugins import SOURCES as SOURCES_HERE
from medmim.questions.cohort import FINDING_COLUMNS, IMAGE_COLUMNS
from medmim.questions.generate import generate_questions
from medmim.questions.row import Row

HELD_IN = ("embed", "lumiere", "ms_cxr_t")
SOURCES = (*HELD_IN, "pmc", "vqa_rad", "odir")
DEFAULT_CFG = {"seed": 7, "benchmark_fraction": 0.25, "open_fraction": 0.1}
COURSES = ("NNNN", "ANNN", "BBBB", "PPPP", "APSM", "NPSM", "PSMK", "SMKK", "MKKK")


class SourceTables:
    """Collects the rows of one source's tables."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.images: list[dict[str, object]] = []
        self.findings: list[dict[str, object]] = []
        self.truth: list[dict[str, str]] = []

    def add_image(self, patient: object, study: object, name: str, day: int | None = None, **columns: str) -> str:
        image_id = f"image-{self.source}-{name}"
        row = dict.fromkeys(IMAGE_COLUMNS, "") | {
            "image_id": image_id, "patient_id": f"{self.source}/{patient}", "study_id": f"{self.source}/{study}", "day": day,
            "release_path": f"{name}.png", "origin_file": f"{name}.png",
        }  # fmt: skip
        self.images.append(row | columns)
        return image_id

    def add_findings(self, patient: object, study: object, image_id: str, **facts: str) -> None:
        for name, value in facts.items():
            row = {
                "finding_id": f"{self.source}/{len(self.findings)}", "patient_id": f"{self.source}/{patient}",
                "study_id": f"{self.source}/{study}" if study else "", "image_id": image_id, "name": name, "value": value,
            }  # fmt: skip
            self.findings.append(row)

    def add_truth(self, name: str, **values: str) -> None:
        self.truth += [{"path": f"{name}.png", "name": n, "value": v} for n, v in values.items()]

    def to_frames(self) -> dict[str, pd.DataFrame]:
        return {
            "images": pd.DataFrame(self.images, columns=[*IMAGE_COLUMNS, "origin_file"]),
            "findings": pd.DataFrame(self.findings, columns=FINDING_COLUMNS),
        }

    def generate_questions(self, **cfg: object) -> list[Row]:
        truth = pd.DataFrame(self.truth, columns=["path", "name", "value"]) if self.truth else None
        module = import_module(f"medmim.sources.{self.source}.questions")
        options = {**DEFAULT_CFG, "sets": SOURCES_HERE[self.source].list_sets(), "truth": truth, **cfg}
        return generate_questions(self.source, module, **self.to_frames(), **options)  # type: ignore[arg-type]


def _fill_embed(source_tables: SourceTables, n: int, rng: np.random.Generator) -> None:
    for p in range(n):
        courses = {side: COURSES[rng.integers(len(COURSES))] for side in "LR"}
        for visit in range(4):
            for side, view in [(s, v) for s in "LR" for v in ("CC", "MLO")]:
                study = f"{p}-{visit}"
                image = source_tables.add_image(p, study, f"{study}-{side}{view}", 365 * visit, view=view, laterality=side)
                letter = courses[side][visit]
                stated = {"birads": letter, "outcome": "N" if letter == "A" else letter}
                source_tables.add_findings(p, study, image, view=view, laterality=side, **stated)


def _fill_lumiere(source_tables: SourceTables, n: int, rng: np.random.Generator) -> None:
    for p in range(n):
        size = int(rng.integers(2))
        stages = [("Pre-Op", 3, 0), ("Post-Op", size, 0)]  # with the week that each is rated against
        baseline = nadir = 1
        for week in range(2, 6):
            new = int(rng.integers(4))
            sizes = [stage[1] for stage in stages]
            is_progression = new > sizes[nadir]
            rano = "PD" if is_progression else "SD" if new == sizes[baseline] else "PR" if new else "CR"
            stages.append((rano, new, nadir if is_progression else baseline))
            if is_progression:
                baseline = nadir = week
            elif new <= sizes[nadir]:
                nadir = week
        for week, (rano, size_now, reference) in enumerate(stages):
            study = f"Patient-{p:03d}/week-{week:03d}"
            for sequence in ("T1", "CT1", "T2", "FLAIR"):
                image = source_tables.add_image(p, study, f"slice_3/{p}-{week}-{sequence}", 7 * week, view=sequence)
                source_tables.add_findings(p, study, image, sequence=sequence)
                size_word = ("none", "small", "medium", "large")[size_now]
                source_tables.add_truth(f"slice_3/{p}-{week}-{sequence}", lesion_size=size_word, lesion_side="L")
                if sequence == "CT1":
                    source_tables.add_findings(p, study, image, enhancing_mm2=str((0, 100, 300, 900)[size_now]))
            source_tables.add_findings(p, study, "", rano=rano)
            if week > 1:
                source_tables.add_findings(p, study, "", reference=f"{reference:03d}")
            if rano == "Post-Op":
                source_tables.add_findings(p, study, "", resection="partial resection" if size_now else "complete resection")


def _fill_ms_cxr_t(source_tables: SourceTables, n: int, rng: np.random.Generator) -> None:
    findings = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
    grades = ("mild", "moderate", "severe")
    for p in range(n):
        finding = findings[p % 5]
        before, after = rng.integers(3, size=2)
        ids = [source_tables.add_image(p, f"s{p}-{k}", f"{p}-{k}") for k in range(2)]
        change = "stable" if before == after else "worsening" if after > before else "improving"
        stated = {"progression": change, "previous": ids[0], "label_quality": "one_expert"}
        source_tables.add_findings(p, f"s{p}-1", ids[1], **{f"{name}:{finding}": value for name, value in stated.items()})
        for k, grade in enumerate((before, after)):
            source_tables.add_truth(f"{p}-{k}", **{f"severity:{finding}": grades[grade]})


def _fill_pmc(source_tables: SourceTables, n: int, rng: np.random.Generator) -> None:
    for p in range(n):
        image = source_tables.add_image(p, p, str(p))
        source_tables.add_findings(p, p, image, domain=("mri", "ct_scan")[p % 2])
        for turn in range(3):
            answer = f"Answer {rng.integers(9)} of {{figure}} {p}."  # braces are text, not fields of a template
            source_tables.add_findings(
                p, p, image, **{f"qa:{turn}:question": f"What is part {turn}?\n<image>", f"qa:{turn}:answer": answer}
            )


def _fill_vqa_rad(source_tables: SourceTables, n: int, rng: np.random.Generator) -> None:
    question_texts = ("Is there a mass?", "Is the heart large?", "Is this an image?", "What plane is this?")
    for p in range(n):
        image = source_tables.add_image(p, p, f"synpic{p}")
        yes = ["yes" if rng.random() < 0.5 else "No" for _ in range(2)]
        for k, answer in enumerate([*yes, "Yes", ("axial", "coronal")[int(rng.integers(2))]]):
            kind = "CLOSED" if k < 3 else "OPEN"
            turn = {"question": question_texts[k], "answer": answer, "answer_type": kind}
            source_tables.add_findings(p, p, image, **{f"qa:{10 * p + k}:{what}": value for what, value in turn.items()})


def _fill_odir(source_tables: SourceTables, n: int, rng: np.random.Generator) -> None:
    diagnoses = ("normal fundus", "glaucoma", "cataract，lens dust", "drusen, mild retinopathy", "myopia")
    for p in range(n):
        for side in "LR":
            image = source_tables.add_image(p, p, f"{p}_{side}", laterality=side)
            source_tables.add_findings(p, p, image, diagnosis=diagnoses[rng.choice(5, p=[0.5, 0.2, 0.1, 0.1, 0.1])])


def make_source_tables(source: str, patients: int = 60) -> SourceTables:
    """The tables of one source; the same for the same number of patients."""
    source_tables = SourceTables(source)
    fillers = {
        "embed": _fill_embed,
        "lumiere": _fill_lumiere,
        "ms_cxr_t": _fill_ms_cxr_t,
        "pmc": _fill_pmc,
        "vqa_rad": _fill_vqa_rad,
        "odir": _fill_odir,
    }
    fillers[source](source_tables, patients, np.random.default_rng([1, *source.encode()]))
    return source_tables

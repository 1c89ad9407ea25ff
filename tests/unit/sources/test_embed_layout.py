"""EMBED as Emory ships it, ids made up: whole and reduced tables, float ids, partial copies; and a cohort by its owner's flow.

The flow is that of the README of Emory-HITI/EMBED_Open_Data: nine of ten screening exams are negative or benign, the others
recalled; two of three diagnostic exams are negative or benign, and of the others a third is cancer, followed for years.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from local_sources import LocalSource
from medmim.config.source_plugins import SOURCES
from medmim.questions.generate import generate_questions
from medmim.sources.embed import adapter, questions

SEVERITY = "NBPASMK"
GRAVITY = {"N": 0, "B": 0, "P": 1, "S": 2, "M": 3, "K": 3}


@dataclass
class Tables:
    """Rows of the owner's tables; ids are numbers."""

    metadata: list[dict[str, Any]] = field(default_factory=list)
    clinical: list[dict[str, Any]] = field(default_factory=list)

    def add_exam(self, patient: int, study: int, day: date, desc: str, letters: dict[str, str]) -> None:
        """An exam of the breasts that `letters` assesses by side."""
        views = [(side, view, "2D", 0) for side in letters for view in ("CC", "MLO")]
        views += [("L" if "L" in letters else "R", "CC", "cview", 0)]
        if "Diagnostic" in desc:
            views += [(side, view, "2D", 1) for side in letters for view in ("CC", "ML")]
        for number, (side, view, kind, spot) in enumerate(views):
            path = f"/mnt/NAS2/mammo/anon_dicom/cohort_{1 + patient % 2}/{patient}/1.2.{study}/1.3.{number}/1.4.{number}.dcm"
            self.metadata.append({
                "empi_anon": patient, "acc_anon": study, "study_date_anon": f"{day}{' 00:00:00' * (number % 2)}",
                "FinalImageType": kind, "ImageLateralityFinal": side, "ViewPosition": view, "spot_mag": spot,
                "anon_dicom_path": path,
            })  # fmt: skip
        for side, letter in letters.items():
            self.clinical.append({
                "empi_anon": patient, "acc_anon": study, "study_date_anon": str(day), "desc": desc, "asses": letter,
                "side": side, "path_severity": 4 if letter == "S" else None,
            })  # fmt: skip

    def write(self, root: Path, *, id_form: str = "float", spot_form: str = "0.0") -> None:
        """Write the four tables: ids as 12345.0 or 12345, an image that is no spot view as 0.0, 0 or blank."""
        spots = {"0.0": {0: "0.0", 1: "1.0"}, "0": {0: "0", 1: "1"}, "blank": {0: None, 1: "1.0"}}[spot_form]
        frames = {"metadata": pd.DataFrame(self.metadata), "clinical": pd.DataFrame(self.clinical)}
        frames["metadata"]["spot_mag"] = frames["metadata"].spot_mag.map(spots)
        (root / "tables").mkdir(parents=True)
        for name, frame in frames.items():
            ids = {column: frame[column].astype(float if id_form == "float" else int) for column in ("empi_anon", "acc_anon")}
            table = frame.assign(**ids)
            table.to_csv(root / f"tables/EMBED_OpenData_{name}_reduced.csv")  # with pandas' index, as the owner's
            table.assign(race=None).to_csv(root / f"tables/EMBED_OpenData_{name}.csv")

    def write_images(self, root: Path) -> None:
        dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        pixels = dataset.pixel_array
        for number, row in enumerate(self.metadata):
            noise = np.random.default_rng(number).integers(0, 300, pixels.shape)
            dataset.PixelData = (pixels + noise).astype(np.int16).tobytes()
            path = root / find_file(row)
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(path)


def find_file(row: dict[str, Any]) -> str:
    return "images/" + row["anon_dicom_path"].removeprefix("/mnt/NAS2/mammo/anon_dicom/")


def simulate_flow(patients: int, recall: float = 0.1) -> Tables:
    """A cohort by the owner's flow: yearly screening, a diagnostic exam weeks after each recall, surveillance of cancer."""
    rng, tables = np.random.default_rng(3), Tables()
    for patient in range(10_000_000, 10_000_000 + patients):
        day, study, cancer_sides = date(2013, 1, 1) + timedelta(int(rng.integers(900))), patient * 1000, set[str]()
        for _ in range(int(rng.integers(2, 7))):
            study += 1
            letters = {side: str(rng.choice(["N", "B"], p=[0.7, 0.3])) for side in "LR"}
            if cancer_sides:
                letters |= {side: str(rng.choice(["K", "B"], p=[0.3, 0.7])) for side in cancer_sides}
                tables.add_exam(patient, study, day, "MG Diagnostic Bilateral", letters)
            else:
                side = str(rng.choice(["L", "R"]))
                if rng.random() < recall:
                    letters[side] = "A"
                tables.add_exam(patient, study, day, "MG Screening Bilateral", letters)
                if letters[side] == "A" and rng.random() < 0.95:
                    study += 1
                    letter = str(rng.choice(["N", "B", "P", "S", "M"], p=[0.35, 0.31, 0.08, 0.21, 0.05]))
                    description = f"MG Diagnostic {'Left' if side == 'L' else 'Right'}"
                    tables.add_exam(patient, study, day + timedelta(int(rng.integers(0, 60))), description, {side: letter})
                    if letter in "SM" and rng.random() < 1 / 3:
                        cancer_sides.add(side)
            day += timedelta(int(rng.choice([365, 730], p=[0.85, 0.15])) + int(rng.integers(-30, 60)))
    return tables


class Truth:
    """What the tables say, worked out here apart from the adapter."""

    def __init__(self, tables: Tables) -> None:
        self.metadata = {find_file(row): row for row in tables.metadata}
        self.exams: dict[tuple[int, str], list[tuple[date, int, bool, str]]] = defaultdict(list)
        for (patient, study, side), group in pd.DataFrame(tables.clinical).groupby(["empi_anon", "acc_anon", "side"]):
            letter = max((letter for letter in group.asses if letter != "X"), key=SEVERITY.index, default="")
            day, is_screening = date.fromisoformat(group.study_date_anon.iloc[0]), "Screening" in group.desc.iloc[0]
            self.exams[patient, side].append((day, study, is_screening, letter))
        for exams in self.exams.values():
            exams.sort()

    def read_letter(self, file: str) -> str:
        row = self.metadata[file]
        exams = self.exams[row["empi_anon"], row["ImageLateralityFinal"]]
        return next(letter for _, study, _, letter in exams if study == row["acc_anon"])

    def find_outcome(self, exams: list[tuple[date, int, bool, str]], study: int) -> str:
        day, letter = next((day, letter) for day, other, _, letter in exams if other == study)
        if letter != "A":
            return letter
        follow_ups = [e for e in exams if not e[2] and e[1] != study and 0 <= (e[0] - day).days <= 180 and e[3] not in ("", "A")]
        return follow_ups[0][3] if follow_ups else ""

    def name_course(self, file: str) -> str:
        """Stable or worse, from the exam of the last image shown to the next yearly one."""
        row = self.metadata[file]
        exams = self.exams[row["empi_anon"], row["ImageLateralityFinal"]]
        day = next(day for day, study, _, _ in exams if study == row["acc_anon"])
        following = next(study for other, study, _, letter in exams if letter and (other - day).days >= 240)
        before, after = (GRAVITY[self.find_outcome(exams, study)] for study in (row["acc_anon"], following))
        assert after >= before, "a breast that got better is not asked about"
        return "worse" if after > before else "stable"


def check_golds(truth: Truth, asked: list[dict[str, Any]], files: dict[str, str]) -> Counter[str]:
    """Every gold against the tables; returns how often each course is right. `files`: by image_id."""
    courses: Counter[str] = Counter()
    for question in asked:
        shown = [files[image_id] for image_id in question["image_ids"]]
        letters = [truth.read_letter(file) for file in shown]
        kind = question["task"].removeprefix("embed_type")
        if kind == "A":
            assert [letter in "SMK" for letter in letters].index(True) == read_place(question)
            assert sum(letter in "SMK" for letter in letters) == 1
        elif kind == "B":
            gold = "worse" if question["answer"].startswith("worse") else "stable"
            assert gold == truth.name_course(shown[-1]) and len(question["options"]) == 2
            courses[gold] += 1
        elif kind == "C":
            view = "MLO" if "MLO" in question["question"] else "CC"
            assert [truth.metadata[file]["ViewPosition"] for file in shown].index(view) == read_place(question)
        else:
            assert {questions.ASSESSMENT_TEXTS[letter] for letter in letters} == {question["answer"]}
    return courses


def read_place(question: dict[str, Any]) -> int:
    """The place of the image that is the answer, from 0."""
    words = ("1", "2", "3"), ("first", "second", "third")
    return next(i for i in range(3) if words[0][i] in question["answer"] or words[1][i] in question["answer"])


@pytest.mark.parametrize(("id_form", "spot_form"), [("float", "0.0"), ("whole", "blank"), ("whole", "0")])
def test_golds_are_what_the_owners_tables_say(id_form: str, spot_form: str, tmp_path: Path) -> None:
    tables = simulate_flow(12, recall=0.5)
    unassessed = next(row for row in tables.clinical if row["asses"] == "N" and row["desc"] == "MG Screening Bilateral")
    tables.clinical.append(unassessed | {"side": "", "asses": "X"})
    absent_study = unassessed | {"acc_anon": 99, "study_date_anon": "2001-05-05"}  # its images are not released
    tables.clinical.append(absent_study)
    tables.write(tmp_path / "embed", id_form=id_form, spot_form=spot_form)
    tables.write_images(tmp_path / "embed")
    source = LocalSource("embed", tmp_path / "embed", tmp_path)
    log = source.build_tables()
    assert source.read_table("rejected").empty
    assert "left out: 1 × clinical row without an assessment (asses X)" in log
    images = source.read_table("images")
    full = [row for row in tables.metadata if row["spot_mag"] == 0 and row["FinalImageType"] == "2D"]
    assert sorted(images.origin_file) == sorted(map(find_file, full))
    tables.clinical.remove(absent_study)
    asked = source.generate_questions()
    check_golds(Truth(tables), asked, dict(zip(images.image_id, images.origin_file, strict=True)))
    assert {q["task"] for q in asked} == {f"embed_type{kind}" for kind in "ABCD"}


def test_every_option_of_a_forecast_occurs_in_the_owners_flow(tmp_path: Path) -> None:
    tables = simulate_flow(1500)
    tables.write(tmp_path)
    (tmp_path / "images/cohort_1").mkdir(parents=True)
    contents = adapter.read_contents(tmp_path)
    assert contents.rejected == []
    images = pd.DataFrame(
        [
            {
                "image_id": p.file, "patient_id": p.patient, "study_id": p.study, "day": p.day, "view": p.view,
                "laterality": p.laterality, "modality": p.modality, "release_path": p.release_path,
            }
            for p in contents.pictures
        ]
    )  # fmt: skip
    findings = pd.DataFrame(
        [
            {
                "finding_id": str(number), "patient_id": f.patient, "study_id": f.study, "image_id": f.file, "name": f.name,
                "value": f.value,
            }
            for number, f in enumerate(contents.facts)
        ]
    )  # fmt: skip
    rows = generate_questions(
        "embed", questions, images, findings, sets=SOURCES["embed"].list_sets(), seed=1, benchmark_fraction=0.3, open_fraction=0.0
    )
    truth, files = Truth(tables), {file: file for file in images.image_id}
    for split in ("train", "benchmark"):
        courses = check_golds(truth, [dict(r) for r in rows if r["split"] == split and r["task"] == "embed_typeB"], files)
        assert min(courses["stable"], courses["worse"]) >= courses.total() / 20 > 1


def test_a_partial_copy_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    tables = simulate_flow(6)
    tables.write(tmp_path / "embed")
    tables.write_images(tmp_path / "embed")
    patients = sorted({row["empi_anon"] for row in tables.metadata})
    here = patients[::2]
    absent = [row for row in tables.metadata if row["empi_anon"] not in here]
    absent.append(next(row for row in tables.metadata if row["empi_anon"] == here[0] and row["FinalImageType"] == "2D"))
    for row in absent:
        (tmp_path / "embed" / find_file(row)).unlink()
    source = LocalSource("embed", tmp_path / "embed", tmp_path)
    absent_count = sum(row["spot_mag"] == 0 and row["FinalImageType"] == "2D" for row in absent)
    assert f"left out: {absent_count} × images that this copy lacks" in source.build_tables()
    assert source.read_table("rejected").empty
    assert set(source.read_table("images").patient_id) == {f"embed/{patient}" for patient in here}
    source.build_tables(limit=2)
    assert len(set(source.read_table("images").patient_id)) == 2, "the limit is of patients whose files are there"


def test_a_copy_without_any_image_is_refused(tmp_path: Path) -> None:
    tables = simulate_flow(2)
    tables.write(tmp_path / "embed")
    (tmp_path / "embed/images/cohort_1").mkdir(parents=True)
    with pytest.raises(AssertionError, match=r"has none of the \d+ images that the tables of embed name"):
        LocalSource("embed", tmp_path / "embed", tmp_path).build_tables()

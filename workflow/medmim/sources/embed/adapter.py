"""EMBED (Emory breast imaging, open subset): mammograms as DICOM, with a table of images and one of clinical findings.

Pictures: full-field 2D images in CC or MLO view. Findings of each image: view, laterality; birads (the letter A, N, B,
P, S, M or K of `asses`) and path_severity (0 invasive cancer ... 5 normal, 6 other) of the clinical rows of its study
whose side is the image's, both (B) or not given. Of several such rows the most severe counts, as the owner advises.

outcome is birads, but for A (additional evaluation): that of the first exam of the breast within FOLLOW_UP_DAYS which is no
screening, as the owner links them (resources/notebooks/screening_label_assignment.ipynb of Emory-HITI/EMBED_Open_Data).
Screening itself never ends in S, M or K. An A that no exam follows has no outcome.
"""

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from medmim.common.errors import UserError
from medmim.common.watched_paths import list_matches
from medmim.sources.base import Picture, Rejection, SourceContents
from medmim.sources.readers import dicom
from medmim.sources.readers.tabular import find_one, parse_day, strip_decimal
from medmim.tables.outside_tables import read_rows

VIEWS = ("CC", "MLO")
SIDES = ("L", "R")
SEVERITY_ORDER = {"birads": "NBPASMK", "path_severity": "6543210"}  # from least to most severe
NO_ASSESSMENT = "X"
"""Of `asses`: the exam was not assessed."""
FOLLOW_UP_DAYS = 180
FACT_COLUMNS = {"birads": "asses", "path_severity": "path_severity"}
METADATA_COLUMNS = (
    "empi_anon",
    "acc_anon",
    "study_date_anon",
    "anon_dicom_path",
    "ImageLateralityFinal",
    "ViewPosition",
    "FinalImageType",
)
METADATA_PATTERNS = "tables/EMBED_OpenData_metadata_reduced.csv", "tables/EMBED_OpenData_metadata.csv"
CLINICAL_PATTERNS = "tables/EMBED_OpenData_clinical_reduced.csv", "tables/EMBED_OpenData_clinical.csv"
"""Where the tables are, the first that is there: the owner ships both, and the reduced ones have all that is read."""
RELEASE_PATTERN = re.compile(r"(cohort_\d+/([^/]+)/([^/]+)/.+)\.png")
CLINICAL_COLUMNS = ("empi_anon", "acc_anon", "side", "asses", "path_severity")


@dataclass
class Exam:
    """What the clinical table states of one exam of a patient. `rows`: rank, letter and row of each assessment, by side."""

    study: str
    day: date | None
    is_screening: bool
    rows: dict[str, list[tuple[int, str, int]]] = field(default_factory=lambda: {side: [] for side in SIDES})

    def assess_side(self, side: str) -> tuple[str, int] | None:
        """The most severe assessment of a side, and its row."""
        if not self.rows[side]:
            return None
        _, letter, row = max(self.rows[side], key=lambda r: (r[0], -r[2]))
        return letter, row


def _find_outcome(exam: Exam, later_exams: list[Exam], side: str) -> tuple[str, int] | None:
    """What an exam of a breast came to, and the row that states it; None where that is not known.

    `later_exams`: those of the patient with a day, in order of it.
    """
    assessment = exam.assess_side(side)
    if assessment is None or assessment[0] != "A" or exam.day is None:
        return assessment if assessment and assessment[0] != "A" else None
    for later in later_exams:
        if later.day is None or later is exam or later.is_screening:
            continue
        if 0 <= (later.day - exam.day).days <= FOLLOW_UP_DAYS:
            follow_up = later.assess_side(side)
            if follow_up and follow_up[0] != "A":
                return follow_up
    return None


def _find_image_folder(root: Path) -> Path:
    """The folder that holds cohort_1 (and cohort_2)."""
    for pattern in ("images/cohort_*/", "cohort_*/", "*/cohort_*/"):
        if matches := list_matches(root, pattern):
            return matches[0].parent
    raise UserError(f"{root}: no folder cohort_1 with EMBED's images in it, in images/ or one folder down")


def _get_skip_reason(row: dict[str, str]) -> str:
    """Why an image is none of ours, empty if it is."""
    if row["FinalImageType"] != "2D":
        return f"FinalImageType {row['FinalImageType'] or 'empty'}"
    if row["ViewPosition"] not in VIEWS:
        return f"view {row['ViewPosition'] or 'empty'}"
    return "spot or magnification view" if strip_decimal(row["spot_mag"]) == "1" else ""


def _add_pictures(root: Path, metadata_path: Path, contents: SourceContents) -> set[str]:
    """Add the pictures with their view and side to the plan; returns all studies that the table names."""
    image_folder = _find_image_folder(root).relative_to(root)
    rows = read_rows(metadata_path, METADATA_COLUMNS, ["spot_mag"])
    table_name = metadata_path.relative_to(root).as_posix()
    first_dates: dict[str, date] = {}
    dates: dict[int, date] = {}
    for number, row in enumerate(rows, 1):
        if row["study_date_anon"]:
            try:
                dates[number] = parse_day(row["study_date_anon"])
            except ValueError:
                reason = f"study_date_anon {row['study_date_anon']!r} is no date"
                contents.rejected.append(Rejection(f"{table_name} row {number}", reason, patient=strip_decimal(row["empi_anon"])))
                continue
            patient = strip_decimal(row["empi_anon"])
            first_dates[patient] = min(dates[number], first_dates.get(patient, dates[number]))
    rows_by_path: dict[str, int] = {}
    studies = set()
    for number, row in enumerate(rows, 1):
        item = f"{table_name} row {number}"
        patient, study = strip_decimal(row["empi_anon"]), strip_decimal(row["acc_anon"])
        if row["study_date_anon"] and number not in dates:
            continue  # rejected above
        if not patient or not study:
            contents.rejected.append(Rejection(item, "empi_anon or acc_anon is empty", patient=patient))
            continue
        studies.add(study)
        if strip_decimal(row["spot_mag"]) not in ("", "0", "1"):
            contents.rejected.append(Rejection(item, f"spot_mag is {row['spot_mag']!r}, neither 0 nor 1", patient=patient))
            continue
        if reason := _get_skip_reason(row):
            contents.skipped[reason] += 1
            continue
        path_match = re.search(r"cohort_\d+/.+\.dcm$", row["anon_dicom_path"])
        if not path_match:
            reason = f"anon_dicom_path {row['anon_dicom_path']!r} has no cohort_1/….dcm in it"
            contents.rejected.append(Rejection(item, reason, patient=patient))
        elif row["ImageLateralityFinal"] not in SIDES:
            reason = f"ImageLateralityFinal is {row['ImageLateralityFinal']!r}, neither L nor R"
            contents.rejected.append(Rejection(item, reason, patient=patient))
        elif path_match[0] in rows_by_path:
            contents.rejected.append(
                Rejection(item, f"same file as row {rows_by_path[path_match[0]]}", is_broken=False, patient=patient)
            )
        else:
            rows_by_path[path_match[0]] = number
            file = (image_folder / path_match[0]).as_posix()
            view, side = row["ViewPosition"], row["ImageLateralityFinal"]
            picture = Picture(
                file=file,
                read_pixels=dicom.read_pixels,
                patient=patient,
                study=study,
                day=(dates[number] - first_dates[patient]).days if number in dates else None,
                view=view,
                laterality=side,
                modality="mammography",
                release_path=path_match[0].removesuffix(".dcm") + ".png",
                item=item,
            )
            contents.pictures.append(picture)
            contents.add_facts(picture, table_name, number, {"view": view, "laterality": side})
    return studies


def _parse_exam_day(text: str) -> date | None:
    try:
        return parse_day(text)
    except ValueError:
        return None


def _add_clinical_facts(root: Path, clinical_path: Path, studies: set[str], contents: SourceContents) -> None:
    """Add what the clinical table states of each breast to the plan, for each of its pictures."""
    table_name = clinical_path.relative_to(root).as_posix()
    pictures_by_study: dict[str, list[Picture]] = defaultdict(list)
    for picture in contents.pictures:
        pictures_by_study[picture.study].append(picture)
    exams_by_patient: dict[str, dict[str, Exam]] = defaultdict(dict)
    most_severe: dict[tuple[str, str], tuple[int, str, int]] = {}  # (file, fact) -> (rank, value, row)
    for number, row in enumerate(read_rows(clinical_path, CLINICAL_COLUMNS, ["study_date_anon", "desc"]), 1):
        item = f"{table_name} row {number}"
        patient, study, side = strip_decimal(row["empi_anon"]), strip_decimal(row["acc_anon"]), row["side"]
        values = {fact: strip_decimal(row[column]) for fact, column in FACT_COLUMNS.items()}
        if values["birads"] == NO_ASSESSMENT:
            contents.skipped[f"clinical row without an assessment (asses {NO_ASSESSMENT})"] += 1
            values["birads"] = ""
        problems = [
            f"{FACT_COLUMNS[f]} is {v!r}, not one of {' '.join(SEVERITY_ORDER[f])}"
            for f, v in values.items()
            if v and v not in [*SEVERITY_ORDER[f]]
        ]
        if side not in ("", "B", *SIDES):
            problems.append(f"side is {side!r}, none of L, R, B")
        if problems:
            contents.rejected.append(Rejection(item, "; ".join(problems), patient=patient))
            continue
        if study not in exams_by_patient[patient]:
            is_screening = "screen" in row["desc"].lower()
            exams_by_patient[patient][study] = Exam(study, _parse_exam_day(row["study_date_anon"]), is_screening)
        if letter := values["birads"]:
            for exam_side in SIDES if side in ("", "B") else (side,):
                exams_by_patient[patient][study].rows[exam_side].append((SEVERITY_ORDER["birads"].index(letter), letter, number))
        pictures = [p for p in pictures_by_study[study] if side in ("", "B", p.laterality)]
        if study not in studies:
            contents.skipped["clinical row of an exam that the metadata table does not have"] += 1
        elif not pictures:
            contents.skipped["clinical row of a breast without a usable image"] += 1
        for picture in pictures:
            for fact, value in values.items():
                if value:
                    key = (picture.file, fact)
                    most_severe[key] = max(most_severe.get(key, (-1, "", 0)), (SEVERITY_ORDER[fact].index(value), value, -number))
    pictures_by_file = {p.file: p for p in contents.pictures}
    for (file, fact), (_, value, negated_row) in most_severe.items():
        contents.add_facts(pictures_by_file[file], table_name, -negated_row, {fact: value})
    _add_outcomes(table_name, exams_by_patient, contents)


def _add_outcomes(table_name: str, exams_by_patient: dict[str, dict[str, Exam]], contents: SourceContents) -> None:
    """Add what the exam of each picture came to."""
    exams_in_order = {
        patient: sorted((e for e in exams.values() if e.day), key=lambda e: (e.day or date.min, e.study))
        for patient, exams in exams_by_patient.items()
    }
    for picture in contents.pictures:
        exam = exams_by_patient.get(picture.patient, {}).get(picture.study)
        if exam is None or exam.assess_side(picture.laterality) is None:
            continue
        if outcome := _find_outcome(exam, exams_in_order[picture.patient], picture.laterality):
            letter, number = outcome
            contents.add_facts(picture, table_name, number, {"outcome": letter})
        else:
            contents.skipped["images whose additional evaluation no exam follows: no outcome"] += 1


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of an EMBED folder: tables/ and images/cohort_*/. Raises UserError for missing tables or columns."""
    contents = SourceContents(is_often_partial=True)
    metadata_path = find_one(root, *METADATA_PATTERNS)
    clinical_path = find_one(root, *CLINICAL_PATTERNS)
    _add_clinical_facts(root, clinical_path, _add_pictures(root, metadata_path, contents), contents)
    return contents


def add_released_pictures(root: Path, contents: SourceContents, paths: Collection[str]) -> None:
    """Add the images that the release names and the tables' choice leaves out, such as other views, by their paths."""
    known_paths = {p.release_path for p in contents.pictures}
    image_folder = _find_image_folder(root).relative_to(root)
    for path in sorted(set(paths) - known_paths):
        if match := RELEASE_PATTERN.fullmatch(path):
            picture = Picture(
                file=(image_folder / f"{match[1]}.dcm").as_posix(),
                read_pixels=dicom.read_pixels,
                patient=match[2],
                study=match[3],
                modality="mammography",
                release_path=path,
            )
            contents.pictures.append(picture)

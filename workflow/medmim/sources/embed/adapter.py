"""EMBED (Emory breast imaging, open subset): mammograms as DICOM, with a table of images and one of clinical findings.

Pictures: full-field 2D images in CC or MLO view. Findings of each image: view, laterality; birads (the letter A, N, B,
P, S, M or K of `asses`) and path_severity (0 invasive cancer ... 5 normal, 6 other) of the clinical rows of its study
whose side is the image's, both (B) or not given. Of several such rows the most severe counts, as the owner advises.
"""

import re
from collections import defaultdict
from datetime import date
from pathlib import Path

from medmim.common.errors import UserError
from medmim.sources.base import Picture, Rejection, SourceContents
from medmim.sources.readers import dicom
from medmim.sources.readers.tabular import find_one, parse_day, strip_decimal
from medmim.tables.outside_tables import read_rows

VIEWS = ("CC", "MLO")
SIDES = ("L", "R")
SEVERITY_ORDER = {"birads": "NBPASMK", "path_severity": "6543210"}  # from least to most severe
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
METADATA_PATTERNS = "tables/EMBED_OpenData_metadata_reduced.csv", "tables/EMBED_OpenData_metadata*.csv"
CLINICAL_PATTERNS = "tables/EMBED_OpenData_clinical_reduced_anon.csv", "tables/EMBED_OpenData_clinical*.csv"
"""Where the tables are, the first that is there."""
CLINICAL_COLUMNS = ("empi_anon", "acc_anon", "side", "asses", "path_severity")


def _find_image_folder(root: Path) -> Path:
    """The folder that holds cohort_1 (and cohort_2)."""
    for pattern in ("images", ".", "*"):
        for folder in sorted(root.glob(pattern)):
            if any(c.is_dir() for c in folder.glob("cohort_*")):
                return folder
    raise UserError(f"{root}: no folder cohort_1 with EMBED's images in it, in images/ or one folder down")


def _get_skip_reason(row: dict[str, str]) -> str:
    """Why an image is none of ours, empty if it is."""
    if row["FinalImageType"] != "2D":
        return f"FinalImageType {row['FinalImageType'] or 'empty'}"
    if row["ViewPosition"] not in VIEWS:
        return f"view {row['ViewPosition'] or 'empty'}"
    return "spot or magnification view" if row["spot_mag"] else ""


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


def _add_clinical_facts(root: Path, clinical_path: Path, studies: set[str], contents: SourceContents) -> None:
    """Add what the clinical table states of each breast to the plan, for each of its pictures."""
    table_name = clinical_path.relative_to(root).as_posix()
    pictures_by_study: dict[str, list[Picture]] = defaultdict(list)
    for picture in contents.pictures:
        pictures_by_study[picture.study].append(picture)
    most_severe: dict[tuple[str, str], tuple[int, str, int]] = {}  # (file, fact) -> (rank, value, row)
    for number, row in enumerate(read_rows(clinical_path, CLINICAL_COLUMNS), 1):
        item = f"{table_name} row {number}"
        study, side = strip_decimal(row["acc_anon"]), row["side"]
        values = {fact: strip_decimal(row[column]) for fact, column in FACT_COLUMNS.items()}
        problems = [
            f"{FACT_COLUMNS[f]} is {v!r}, not one of {' '.join(SEVERITY_ORDER[f])}"
            for f, v in values.items()
            if v and v not in [*SEVERITY_ORDER[f]]
        ]
        if side not in ("", "B", *SIDES):
            problems.append(f"side is {side!r}, none of L, R, B")
        if not problems and study not in studies:
            problems.append(f"study {study} has no images")
        if problems:
            contents.rejected.append(Rejection(item, "; ".join(problems), patient=strip_decimal(row["empi_anon"])))
            continue
        pictures = [p for p in pictures_by_study[study] if side in ("", "B", p.laterality)]
        if not pictures:
            contents.skipped["clinical row of a breast without a usable image"] += 1
        for picture in pictures:
            for fact, value in values.items():
                if value:
                    key = (picture.file, fact)
                    most_severe[key] = max(most_severe.get(key, (-1, "", 0)), (SEVERITY_ORDER[fact].index(value), value, -number))
    pictures_by_file = {p.file: p for p in contents.pictures}
    for (file, fact), (_, value, negated_row) in most_severe.items():
        contents.add_facts(pictures_by_file[file], table_name, -negated_row, {fact: value})


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of an EMBED folder: tables/ and images/cohort_*/. Raises UserError for missing tables or columns."""
    contents = SourceContents()
    metadata_path = find_one(root, *METADATA_PATTERNS)
    clinical_path = find_one(root, *CLINICAL_PATTERNS)
    _add_clinical_facts(root, clinical_path, _add_pictures(root, metadata_path, contents), contents)
    return contents

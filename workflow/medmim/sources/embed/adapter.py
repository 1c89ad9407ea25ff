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
from medmim.sources.base import Picture, Plan, Rejection
from medmim.sources.readers import dicom
from medmim.sources.readers.tabular import day, one, table, whole_number

VIEWS = ("CC", "MLO")
SIDES = ("L", "R")
ORDER = {"birads": "NBPASMK", "path_severity": "6543210"}  # from least to most severe
COLUMN = {"birads": "asses", "path_severity": "path_severity"}
METADATA = (
    "empi_anon",
    "acc_anon",
    "study_date_anon",
    "anon_dicom_path",
    "ImageLateralityFinal",
    "ViewPosition",
    "FinalImageType",
)
METADATA_TABLE = "tables/EMBED_OpenData_metadata_reduced.csv", "tables/EMBED_OpenData_metadata*.csv"
CLINICAL_TABLE = "tables/EMBED_OpenData_clinical_reduced_anon.csv", "tables/EMBED_OpenData_clinical*.csv"
"""Where the tables are, the first that is there."""
CLINICAL = ("empi_anon", "acc_anon", "side", "asses", "path_severity")


def _folder(root: Path) -> Path:
    """The folder that holds cohort_1 (and cohort_2)."""
    for pattern in ("images", ".", "*"):
        for place in sorted(root.glob(pattern)):
            if any(c.is_dir() for c in place.glob("cohort_*")):
                return place
    raise UserError(f"{root}: no folder cohort_1 with EMBED's images in it, in images/ or one folder down")


def _skip(row: dict[str, str]) -> str:
    """Why an image is none of ours, empty if it is."""
    if row["FinalImageType"] != "2D":
        return f"FinalImageType {row['FinalImageType'] or 'empty'}"
    if row["ViewPosition"] not in VIEWS:
        return f"view {row['ViewPosition'] or 'empty'}"
    return "spot or magnification view" if row["spot_mag"] else ""


def _pictures(root: Path, metadata: Path, plan: Plan) -> set[str]:
    """Add the pictures with their view and side to the plan; returns all studies that the table names."""
    place = _folder(root).relative_to(root)
    rows = table(metadata, METADATA, ["spot_mag"])
    name = metadata.relative_to(root).as_posix()
    first: dict[str, date] = {}
    dates: dict[int, date] = {}
    for number, row in enumerate(rows, 1):
        if row["study_date_anon"]:
            try:
                dates[number] = day(row["study_date_anon"])
            except ValueError:
                reason = f"study_date_anon {row['study_date_anon']!r} is no date"
                plan.rejected.append(Rejection(f"{name} row {number}", reason, patient=whole_number(row["empi_anon"])))
                continue
            patient = whole_number(row["empi_anon"])
            first[patient] = min(dates[number], first.get(patient, dates[number]))
    seen: dict[str, int] = {}
    studies = set()
    for number, row in enumerate(rows, 1):
        item = f"{name} row {number}"
        patient, study = whole_number(row["empi_anon"]), whole_number(row["acc_anon"])
        if row["study_date_anon"] and number not in dates:
            continue  # rejected above
        if not patient or not study:
            plan.rejected.append(Rejection(item, "empi_anon or acc_anon is empty", patient=patient))
            continue
        studies.add(study)
        if reason := _skip(row):
            plan.skipped[reason] += 1
            continue
        path = re.search(r"cohort_\d+/.+\.dcm$", row["anon_dicom_path"])
        if not path:
            reason = f"anon_dicom_path {row['anon_dicom_path']!r} has no cohort_1/….dcm in it"
            plan.rejected.append(Rejection(item, reason, patient=patient))
        elif row["ImageLateralityFinal"] not in SIDES:
            reason = f"ImageLateralityFinal is {row['ImageLateralityFinal']!r}, neither L nor R"
            plan.rejected.append(Rejection(item, reason, patient=patient))
        elif path[0] in seen:
            plan.rejected.append(Rejection(item, f"same file as row {seen[path[0]]}", broken=False, patient=patient))
        else:
            seen[path[0]] = number
            file = (place / path[0]).as_posix()
            view, side = row["ViewPosition"], row["ImageLateralityFinal"]
            picture = Picture(
                file=file,
                read=dicom.read,
                patient=patient,
                study=study,
                day=(dates[number] - first[patient]).days if number in dates else None,
                view=view,
                laterality=side,
                modality="mammography",
                release_path=path[0].removesuffix(".dcm") + ".png",
                item=item,
            )
            plan.pictures.append(picture)
            plan.state(picture, name, number, {"view": view, "laterality": side})
    return studies


def _clinical(root: Path, clinical: Path, studies: set[str], plan: Plan) -> None:
    """Add what the clinical table states of each breast to the plan, for each of its pictures."""
    name = clinical.relative_to(root).as_posix()
    shown: dict[str, list[Picture]] = defaultdict(list)
    for picture in plan.pictures:
        shown[picture.study].append(picture)
    worst: dict[tuple[str, str], tuple[int, str, int]] = {}  # (file, fact) -> (rank, value, row)
    for number, row in enumerate(table(clinical, CLINICAL), 1):
        item = f"{name} row {number}"
        study, side = whole_number(row["acc_anon"]), row["side"]
        values = {fact: whole_number(row[column]) for fact, column in COLUMN.items()}
        odd = [f"{COLUMN[f]} is {v!r}, not one of {' '.join(ORDER[f])}" for f, v in values.items() if v and v not in [*ORDER[f]]]
        if side not in ("", "B", *SIDES):
            odd.append(f"side is {side!r}, none of L, R, B")
        if not odd and study not in studies:
            odd.append(f"study {study} has no images")
        if odd:
            plan.rejected.append(Rejection(item, "; ".join(odd), patient=whole_number(row["empi_anon"])))
            continue
        pictures = [p for p in shown[study] if side in ("", "B", p.laterality)]
        if not pictures:
            plan.skipped["clinical row of a breast without a usable image"] += 1
        for picture in pictures:
            for fact, value in values.items():
                if value:
                    key = (picture.file, fact)
                    worst[key] = max(worst.get(key, (-1, "", 0)), (ORDER[fact].index(value), value, -number))
    owners = {p.file: p for p in plan.pictures}
    for (file, fact), (_, value, negative) in worst.items():
        plan.state(owners[file], name, -negative, {fact: value})


def plan(root: Path) -> Plan:
    """Pictures and facts of an EMBED folder: tables/ and images/cohort_*/. Raises UserError for missing tables or columns."""
    made = Plan()
    metadata = one(root, *METADATA_TABLE)
    clinical = one(root, *CLINICAL_TABLE)
    _clinical(root, clinical, _pictures(root, metadata, made), made)
    return made

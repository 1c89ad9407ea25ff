"""MS-CXR-T: pairs of chest X-rays of one patient, images of MIMIC-CXR-JPG, with how each of five findings progressed.

Pictures: every image that the table names, current or previous. Findings of the current image of a pair:
progression:<finding> (improving, stable, worsening) and, of the same row, previous:<finding>, the image_id of the
previous image, and label_quality:<finding> (one_expert, multiple_experts, disagreement, or not_stated).
<finding> is consolidation, edema, pleural_effusion, pneumonia or pneumothorax.
"""

import re
from collections.abc import Collection
from pathlib import Path

from medmim.common.outside_files import is_file
from medmim.common.watched_paths import list_matches
from medmim.sources.base import Picture, Rejection, SourceContents, order_patients
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import find_one, strip_decimal
from medmim.tables.outside_tables import read_rows

TABLE_PATTERN = "MS_CXR_T_temporal_image_classification*.csv"
FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("improving", "stable", "worsening")
LABEL_QUALITIES = ("one_expert", "multiple_experts", "disagreement")
NOT_STATED = "not_stated"
ID_COLUMNS = ("subject_id", "study_id", "previous_study_id")
IMAGE_COLUMNS = ("dicom_id", "previous_dicom_id")
PROGRESSION_COLUMNS = tuple(f"{f}_progression" for f in FINDINGS)
RELEASE_PATTERN = re.compile(r"(p\d+/p(\d+)/s(\d+)/[\w-]+)\.png")
QUALITY_COLUMNS = tuple(f"{f}_label_quality" for f in FINDINGS)


def _make_stem(row: dict[str, str], prefix: str) -> str:
    """Path of an image of a row below MIMIC-CXR-JPG's files, without its ending. `prefix`: empty or previous_."""
    subject, study = row["subject_id"], row[f"{prefix}study_id"]
    return f"p{subject[:2]}/p{subject}/s{study}/{row[f'{prefix}dicom_id'].rpartition('/')[2]}"


def _find_row_problems(row: dict[str, str]) -> list[str]:
    """What makes a row unusable, in words."""
    problems = [f"{k} is {row[k]!r}, not a number" for k in ID_COLUMNS if not (row[k].isascii() and row[k].isdigit())]
    for column, prefix in zip(IMAGE_COLUMNS, ("", "previous_"), strict=True):
        stem = _make_stem(row, prefix)
        name = stem.rpartition("/")[2]
        if row[column] not in (stem, name) or not re.fullmatch(r"[\w-]+", name):
            problems.append(f"{column} is {row[column]!r}, not an image of the row's subject and study, {stem}")
    for columns, values in ((PROGRESSION_COLUMNS, PROGRESSIONS), (QUALITY_COLUMNS, LABEL_QUALITIES)):
        problems += [f"{c} is {row[c]!r}, none of {', '.join(values)}" for c in columns if row[c] and row[c] not in values]
    if not any(row[c] for c in PROGRESSION_COLUMNS):
        problems.append("no finding has a progression")
    if _make_stem(row, "") == _make_stem(row, "previous_"):
        problems.append("dicom_id and previous_dicom_id are the same")
    return problems


def _normalize_row(cells: dict[str, str]) -> dict[str, str]:
    """Cells of a row, ids without '.0', labels in lower case."""
    row = {k: strip_decimal(v) if k in ID_COLUMNS else v for k, v in cells.items()}
    return row | {k: row[k].lower() for k in (*PROGRESSION_COLUMNS, *QUALITY_COLUMNS)}


def _list_folders(root: Path) -> list[str]:
    """The root and the folders in it, as the start of a path below the root."""
    return ["", *(f"{folder.name}/" for folder in list_matches(root, "*/") if not folder.name.startswith("."))]


def _locate_image(root: Path, folders: list[str], stem: str) -> str:
    """Path of an image below the root: in the owner's tree, else flat in one of `folders`, else where the owner has it."""
    tree_paths = [f"files/{stem}.jpg", f"{stem}.jpg"]
    flat_paths = [f"{folder}{stem.rpartition('/')[2]}.jpg" for folder in folders]
    return next((path for path in (*tree_paths, *flat_paths) if is_file(root / path)), tree_paths[0])


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of an MS-CXR-T folder: its table and files/pNN/p<subject>/s<study>/<hash>.jpg. Raises UserError.

    The images may lie in one flat folder too, the root or a folder in it, as <hash>.jpg.
    """
    return read_limited_contents(root, None)


def read_limited_contents(root: Path, limit: int | None) -> SourceContents:
    """As `read_contents`; images of patients beyond the limit are not looked for."""
    path = find_one(root, TABLE_PATTERN)
    folders = _list_folders(root)
    contents = SourceContents()
    pictures: dict[str, Picture] = {}
    columns = (*ID_COLUMNS, *IMAGE_COLUMNS, *PROGRESSION_COLUMNS)
    rows = [_normalize_row(cells) for cells in read_rows(path, columns, QUALITY_COLUMNS)]
    problems_by_row = [_find_row_problems(row) for row in rows]
    patients = {row["subject_id"] for row, problems in zip(rows, problems_by_row, strict=True) if not problems}
    wanted_patients = set(order_patients(patients)[:limit])
    for number, (row, problems) in enumerate(zip(rows, problems_by_row, strict=True), 1):
        item = f"{path.name} row {number}"
        if problems:
            contents.rejected.append(Rejection(item, "; ".join(problems), patient=row["subject_id"]))
            continue
        pair = []
        for prefix in ("", "previous_"):
            stem = _make_stem(row, prefix)
            if stem not in pictures:
                is_wanted = row["subject_id"] in wanted_patients
                pictures[stem] = Picture(
                    file=_locate_image(root, folders, stem) if is_wanted else f"files/{stem}.jpg",
                    read_pixels=raster.read_pixels,
                    patient=row["subject_id"],
                    study=row[f"{prefix}study_id"],
                    modality="radiography",
                    release_path=f"{stem}.png",
                    item=item,
                )
            pair.append(pictures[stem])
        current, previous = pair
        facts = {}
        for finding in FINDINGS:
            if progression := row[f"{finding}_progression"]:
                facts[f"progression:{finding}"] = progression
                facts[f"label_quality:{finding}"] = row[f"{finding}_label_quality"] or NOT_STATED
                facts[f"previous:{finding}"] = previous.file
        contents.add_facts(current, path.name, number, facts, other_picture=previous)
    contents.pictures = list(pictures.values())
    return contents


def add_released_pictures(root: Path, contents: SourceContents, paths: Collection[str]) -> None:
    """Add the images that the release names and the table does not, by their paths."""
    known_paths = {p.release_path for p in contents.pictures}
    folders = _list_folders(root)
    for path in sorted(set(paths) - known_paths):
        if match := RELEASE_PATTERN.fullmatch(path):
            picture = Picture(
                file=_locate_image(root, folders, match[1]),
                read_pixels=raster.read_pixels,
                patient=match[2],
                study=match[3],
                modality="radiography",
                release_path=path,
            )
            contents.pictures.append(picture)

"""MS-CXR-T: pairs of chest X-rays of one patient, images of MIMIC-CXR-JPG, with how each of five findings progressed.

Pictures: every image that the table names, current or previous. Findings of the current image of a pair:
progression:<finding> (improving, stable, worsening) and, of the same row, previous:<finding>, the image_id of the
previous image. <finding> is consolidation, edema, pleural_effusion, pneumonia or pneumothorax.
"""

import re
from pathlib import Path

from medmim.sources.base import Picture, Rejection, SourceContents
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import find_one, strip_decimal
from medmim.tables.outside_tables import read_rows

TABLE_PATTERN = "MS_CXR_T_temporal_image_classification*.csv"
FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("improving", "stable", "worsening")
ID_COLUMNS = ("dicom_id", "previous_dicom_id", "study_id", "previous_study_id", "subject_id")


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of an MS-CXR-T folder: its table and files/pNN/p<subject>/s<study>/<dicom>.jpg. Raises UserError."""
    path = find_one(root, TABLE_PATTERN)
    contents = SourceContents()
    pictures: dict[str, Picture] = {}
    for number, row in enumerate(read_rows(path, (*ID_COLUMNS, *(f"{f}_progression" for f in FINDINGS))), 1):
        item = f"{path.name} row {number}"
        row_ids = {k: strip_decimal(row[k]) for k in ID_COLUMNS}
        problems = [f"{k} is {v!r}" for k, v in row_ids.items() if not re.fullmatch(r"[\w-]+", v)]
        progressions = {f: row[f"{f}_progression"].lower() for f in FINDINGS if row[f"{f}_progression"]}
        problems += [
            f"{f}_progression is {v!r}, none of {', '.join(PROGRESSIONS)}"
            for f, v in progressions.items()
            if v not in PROGRESSIONS
        ]
        if not progressions:
            problems.append("no finding has a progression")
        if row_ids["dicom_id"] == row_ids["previous_dicom_id"]:
            problems.append("dicom_id and previous_dicom_id are the same")
        if problems:
            contents.rejected.append(Rejection(item, "; ".join(problems), patient=row_ids["subject_id"]))
            continue
        subject = row_ids["subject_id"]
        pair = []
        for prefix in ("", "previous_"):
            study = row_ids[f"{prefix}study_id"]
            stem = f"p{subject[:2]}/p{subject}/s{study}/{row_ids[f'{prefix}dicom_id']}"
            picture = Picture(
                file=f"files/{stem}.jpg",
                read_pixels=raster.read_pixels,
                patient=subject,
                study=study,
                modality="radiography",
                release_path=f"{stem}.png",
                item=item,
            )
            pair.append(pictures.setdefault(picture.file, picture))
        current, previous = pair
        contents.add_facts(
            current, path.name, number, {f"progression:{f}": v for f, v in progressions.items()}, other_picture=previous
        )
        contents.add_facts(
            current, path.name, number, {f"previous:{f}": previous.file for f in progressions}, other_picture=previous
        )
    contents.pictures = list(pictures.values())
    return contents

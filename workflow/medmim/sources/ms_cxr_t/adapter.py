"""MS-CXR-T: pairs of chest X-rays of one patient, images of MIMIC-CXR-JPG, with how each of five findings progressed.

Pictures: every image that the table names, current or previous. Findings of the current image of a pair:
progression:<finding> (improving, stable, worsening) and, of the same row, previous:<finding>, the image_id of the
previous image. <finding> is consolidation, edema, pleural_effusion, pneumonia or pneumothorax.
"""

import re
from pathlib import Path

from medmim.sources.base import Picture, Plan, Rejection
from medmim.sources.readers import raster
from medmim.sources.readers.tabular import one, table, whole_number

TABLE = "MS_CXR_T_temporal_image_classification*.csv"
FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("improving", "stable", "worsening")
KEYS = ("dicom_id", "previous_dicom_id", "study_id", "previous_study_id", "subject_id")


def plan(root: Path) -> Plan:
    """Pictures and facts of an MS-CXR-T folder: its table and files/pNN/p<subject>/s<study>/<dicom>.jpg. Raises UserError."""
    path = one(root, TABLE)
    made = Plan()
    pictures: dict[str, Picture] = {}
    for number, row in enumerate(table(path, (*KEYS, *(f"{f}_progression" for f in FINDINGS))), 1):
        item = f"{path.name} row {number}"
        ids = {k: whole_number(row[k]) for k in KEYS}
        odd = [f"{k} is {v!r}" for k, v in ids.items() if not re.fullmatch(r"[\w-]+", v)]
        stated = {f: row[f"{f}_progression"].lower() for f in FINDINGS if row[f"{f}_progression"]}
        odd += [
            f"{f}_progression is {v!r}, none of {', '.join(PROGRESSIONS)}" for f, v in stated.items() if v not in PROGRESSIONS
        ]
        if not stated:
            odd.append("no finding has a progression")
        if ids["dicom_id"] == ids["previous_dicom_id"]:
            odd.append("dicom_id and previous_dicom_id are the same")
        if odd:
            made.rejected.append(Rejection(item, "; ".join(odd), patient=ids["subject_id"]))
            continue
        subject = ids["subject_id"]
        pair = []
        for which in ("", "previous_"):
            study = ids[f"{which}study_id"]
            stem = f"p{subject[:2]}/p{subject}/s{study}/{ids[f'{which}dicom_id']}"
            picture = Picture(
                file=f"files/{stem}.jpg",
                read=raster.read,
                patient=subject,
                study=study,
                modality="radiography",
                release_path=f"{stem}.png",
                item=item,
            )
            pair.append(pictures.setdefault(picture.file, picture))
        current, previous = pair
        made.state(current, path.name, number, {f"progression:{f}": v for f, v in stated.items()}, pair=previous)
        made.state(current, path.name, number, {f"previous:{f}": previous.file for f in stated}, pair=previous)
    made.pictures = list(pictures.values())
    return made

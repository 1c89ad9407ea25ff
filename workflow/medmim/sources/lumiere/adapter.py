"""LUMIERE: glioblastoma patients over weeks, each visit as T1, CT1, T2 and FLAIR volumes, with an expert's RANO rating.

Pictures: one axial slice of every volume, at one height (mm in scanner coordinates) per patient: the middle of the
enhancing tissue in the CT1 of the first visit that has one, so that sequences and visits of a patient are comparable.
Findings of each image: sequence. Of a visit: week; rano (PD, SD, PR, CR, Pre-Op, Post-Op); resection (complete
resection, partial resection), where the rationale of a Post-Op rating is CRET or PRET.
"""

import re
from functools import partial
from pathlib import Path

from medmim.common import outside_files
from medmim.common.errors import UserError
from medmim.sources.base import Fact, Picture, Rejection, SourceContents
from medmim.sources.readers import nifti
from medmim.sources.rendering import decode_bytes
from medmim.tables.outside_tables import read_rows

RATINGS_FILE = "LUMIERE-ExpertRating-v202211.csv"
RATING_COLUMN = "Rating (according to RANO…"
RATIONALE_COLUMN = "Rating rationale…"
SEQUENCES = ("CT1", "T1", "T2", "FLAIR")
RANO_RATINGS = ("PD", "SD", "PR", "CR", "Pre-Op", "Post-Op")
RESECTION_EXTENTS = {"CRET": "complete resection", "PRET": "partial resection"}
WEEK_PATTERN = re.compile(r"week-(\d{3})(-\d+)?")


def _choose_slice(visits: list[Path]) -> tuple[int, float] | None:
    """(slice index in its volume, height in mm) of the patient's slice, from the first CT1 that can be read."""
    for visit in visits:
        try:
            return decode_bytes(outside_files.read_bytes(visit / "CT1.nii.gz"), nifti.find_enhancing_slice)
        except (FileNotFoundError, ValueError):
            continue  # a volume that is broken is listed when its own picture is read
    return None


def _add_visit(root: Path, visit: Path, slice_level: tuple[int, float], contents: SourceContents) -> None:
    """Add a visit's pictures to the plan."""
    patient, week = visit.parent.name, visit.name
    match = WEEK_PATTERN.fullmatch(week)
    assert match is not None
    volumes = {s: visit / f"{s}.nii.gz" for s in SEQUENCES}
    existing_volumes = {s: v for s, v in volumes.items() if v.is_file()}
    if not existing_volumes:
        reason = f"a visit without images: none of {', '.join(SEQUENCES)}"
        contents.rejected.append(Rejection(visit.relative_to(root).as_posix(), reason, patient=patient))
    for sequence, path in volumes.items():
        if sequence not in existing_volumes:
            contents.skipped[f"visits without {sequence}"] += bool(existing_volumes)
            continue
        file = path.relative_to(root).as_posix()
        study = f"{patient}/{week}"
        release_path = (
            f"{sequence.lower()}_LUMIERE_images_tumor1200px_256x256/{patient}/slice_{slice_level[0]}/week_{week[5:]}.png"
        )
        picture = Picture(
            file=file,
            read_pixels=partial(nifti.read_axial_slice, height=slice_level[1]),
            patient=patient,
            study=study,
            day=int(match[1]) * 7,
            view=sequence,
            modality="MRI",
            release_path=release_path,
        )
        contents.pictures.append(picture)
        contents.add_facts(picture, file, 1, {"sequence": sequence, "week": week.removeprefix("week-")})


def _add_ratings(root: Path, contents: SourceContents) -> None:
    """Add the expert's ratings to the plan."""
    studies_with_images = {p.study for p in contents.pictures}
    for number, row in enumerate(read_rows(root / RATINGS_FILE, ("Patient", "Date", RATING_COLUMN, RATIONALE_COLUMN)), 1):
        patient, week, rating = row["Patient"], row["Date"], row[RATING_COLUMN]
        study = f"{patient}/{week}"
        item = f"{RATINGS_FILE} row {number}"
        if not rating:
            contents.skipped["visits without a rating"] += 1
            continue
        if rating not in RANO_RATINGS:
            contents.rejected.append(Rejection(item, f"rating {rating!r} is none of {', '.join(RANO_RATINGS)}", patient=patient))
            continue
        if study not in studies_with_images:
            reason = f"a study without images: no folder {study} with volumes"
            contents.rejected.append(Rejection(item, reason, patient=patient))
            continue
        facts = {"rano": rating}
        if rating == "Post-Op":
            extents = set(re.findall(rf"\b({'|'.join(RESECTION_EXTENTS)})\b", row[RATIONALE_COLUMN]))
            if len(extents) == 1:
                facts["resection"] = RESECTION_EXTENTS[extents.pop()]
            else:
                contents.skipped["Post-Op ratings without an extent of resection"] += 1
        for name, value in facts.items():
            contents.facts.append(Fact(name=name, value=value, patient=patient, study=study, table=RATINGS_FILE, row=number))


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of a LUMIERE folder: Imaging/Patient-XXX/week-YYY/ and the rating table. Raises UserError."""
    imaging = root / "Imaging"
    if not imaging.is_dir():
        raise UserError(f"{root}: no folder Imaging here; expected LUMIERE's layout, Imaging/Patient-XXX/week-YYY/CT1.nii.gz")
    contents = SourceContents()
    for patient in sorted(imaging.glob("Patient-*")):
        visits = sorted(v for v in patient.iterdir() if v.is_dir())
        for misnamed_folder in [v for v in visits if not WEEK_PATTERN.fullmatch(v.name)]:
            reason = "a visit's folder is not named week-YYY"
            contents.rejected.append(Rejection(misnamed_folder.relative_to(root).as_posix(), reason, patient=patient.name))
            visits.remove(misnamed_folder)
        slice_level = _choose_slice(visits)
        if slice_level is None:
            reason = "no visit of this patient has a readable CT1 volume to choose the slice from"
            broken_visits = [v.relative_to(root).as_posix() for v in visits or [patient]]
            contents.rejected += [Rejection(item, reason, patient=patient.name) for item in broken_visits]
            continue
        for visit in visits:
            _add_visit(root, visit, slice_level, contents)
    _add_ratings(root, contents)
    return contents

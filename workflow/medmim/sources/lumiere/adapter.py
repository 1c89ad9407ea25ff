"""LUMIERE: glioblastoma patients over weeks, each visit as T1, CT1, T2 and FLAIR volumes, with an expert's RANO rating.

Pictures: one axial slice of every volume, at one height (mm in scanner coordinates) per patient: the middle of the
enhancing tissue in the CT1 of the first visit that has one, so that sequences and visits of a patient are comparable.
Findings of each image: sequence. Of a visit: week; rano (PD, SD, PR, CR, Pre-Op, Post-Op); resection (complete
resection, partial resection), where the rationale of a Post-Op rating is CRET or PRET.
"""

import re
from functools import partial
from pathlib import Path

from medmim.common.errors import UserError
from medmim.sources.base import Fact, Picture, Plan, Rejection
from medmim.sources.readers import nifti
from medmim.sources.readers.tabular import table

RATINGS = "LUMIERE-ExpertRating-v202211.csv"
RATING = "Rating (according to RANO…"
RATIONALE = "Rating rationale…"
SEQUENCES = ("CT1", "T1", "T2", "FLAIR")
RANO = ("PD", "SD", "PR", "CR", "Pre-Op", "Post-Op")
RESECTION = {"CRET": "complete resection", "PRET": "partial resection"}
WEEK = re.compile(r"week-(\d{3})(-\d+)?")


def _level(visits: list[Path]) -> tuple[int, float] | None:
    """(slice index in its volume, height in mm) of the patient's slice, from the first CT1 that can be read."""
    for visit in visits:
        try:
            return nifti.enhancing((visit / "CT1.nii.gz").read_bytes())
        except (FileNotFoundError, ValueError):
            continue  # a volume that is broken is listed when its own picture is read
    return None


def _visit(root: Path, visit: Path, level: tuple[int, float], plan: Plan) -> None:
    """Add a visit's pictures to the plan."""
    patient, week = visit.parent.name, visit.name
    match = WEEK.fullmatch(week)
    assert match is not None
    volumes = {s: visit / f"{s}.nii.gz" for s in SEQUENCES}
    there = {s: v for s, v in volumes.items() if v.is_file()}
    if not there:
        reason = f"a visit without images: none of {', '.join(SEQUENCES)}"
        plan.rejected.append(Rejection(visit.relative_to(root).as_posix(), reason, patient=patient))
    for sequence, path in volumes.items():
        if sequence not in there:
            plan.skipped[f"visits without {sequence}"] += bool(there)
            continue
        file = path.relative_to(root).as_posix()
        study = f"{patient}/{week}"
        released = f"{sequence.lower()}_LUMIERE_images_tumor1200px_256x256/{patient}/slice_{level[0]}/week_{week[5:]}.png"
        picture = Picture(
            file=file,
            read=partial(nifti.axial, height=level[1]),
            patient=patient,
            study=study,
            day=int(match[1]) * 7,
            view=sequence,
            modality="MRI",
            release_path=released,
        )
        plan.pictures.append(picture)
        plan.state(picture, file, 1, {"sequence": sequence, "week": week.removeprefix("week-")})


def _ratings(root: Path, plan: Plan) -> None:
    """Add the expert's ratings to the plan."""
    shown = {p.study for p in plan.pictures}
    for number, row in enumerate(table(root / RATINGS, ("Patient", "Date", RATING, RATIONALE)), 1):
        patient, week, rating = row["Patient"], row["Date"], row[RATING]
        study = f"{patient}/{week}"
        item = f"{RATINGS} row {number}"
        if not rating:
            plan.skipped["visits without a rating"] += 1
            continue
        if rating not in RANO:
            plan.rejected.append(Rejection(item, f"rating {rating!r} is none of {', '.join(RANO)}", patient=patient))
            continue
        if study not in shown:
            reason = f"a study without images: no folder {study} with volumes"
            plan.rejected.append(Rejection(item, reason, patient=patient))
            continue
        stated = {"rano": rating}
        if rating == "Post-Op":
            extents = set(re.findall(rf"\b({'|'.join(RESECTION)})\b", row[RATIONALE]))
            if len(extents) == 1:
                stated["resection"] = RESECTION[extents.pop()]
            else:
                plan.skipped["Post-Op ratings without an extent of resection"] += 1
        for name, value in stated.items():
            plan.facts.append(Fact(name=name, value=value, patient=patient, study=study, table=RATINGS, row=number))


def plan(root: Path) -> Plan:
    """Pictures and facts of a LUMIERE folder: Imaging/Patient-XXX/week-YYY/ and the rating table. Raises UserError."""
    imaging = root / "Imaging"
    if not imaging.is_dir():
        raise UserError(f"{root}: no folder Imaging here; expected LUMIERE's layout, Imaging/Patient-XXX/week-YYY/CT1.nii.gz")
    made = Plan()
    for patient in sorted(imaging.glob("Patient-*")):
        visits = sorted(v for v in patient.iterdir() if v.is_dir())
        for odd in [v for v in visits if not WEEK.fullmatch(v.name)]:
            reason = "a visit's folder is not named week-YYY"
            made.rejected.append(Rejection(odd.relative_to(root).as_posix(), reason, patient=patient.name))
            visits.remove(odd)
        level = _level(visits)
        if level is None:
            reason = "no visit of this patient has a readable CT1 volume to choose the slice from"
            broken = [v.relative_to(root).as_posix() for v in visits or [patient]]
            made.rejected += [Rejection(item, reason, patient=patient.name) for item in broken]
            continue
        for visit in visits:
            _visit(root, visit, level, made)
    _ratings(root, made)
    return made

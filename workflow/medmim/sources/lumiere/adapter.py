"""LUMIERE: glioblastoma patients over weeks, each visit as T1, CT1, T2 and FLAIR volumes, with an expert's RANO rating.

Pictures: one coronal slice of every volume that DeepBraTumIA registered to its atlas (MNI space, 1 mm), where slices of all
sequences and visits correspond: for each patient the slice with most enhancing tumour, by the masks of all visits. The
authors' release shows coronal slices of the same volumes, counted along their second axis: its indices, up to 191, are no
axial ones of a grid of 182 x 218 x 182. Volumes on their own native grids are not read.
Findings of each image: sequence; week; enhancing_mm2 (of CT1: area of enhancing tumour in the slice, with what it encloses).
Of a visit: rano, as the table has it; progression (T2, where a progression is not one of enhancing tumour); resection
(complete resection, partial resection), where the rationale of a postoperative rating is CRET or PRET; reference, the week
of the scan that a response is rated against.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes

from medmim.common import outside_files
from medmim.common.errors import UserError
from medmim.common.watched_paths import list_matches, note_read, stamp_path
from medmim.sources.base import Fact, Picture, Rejection, SourceContents, order_patients
from medmim.sources.readers import nifti
from medmim.sources.rendering import decode_bytes
from medmim.tables.outside_tables import read_rows

RATINGS_FILE = "LUMIERE-ExpertRating-v202211.csv"
RATING_COLUMN = "Rating (according to RANO…"
RATIONALE_COLUMN = "Rating rationale…"
SEQUENCES = ("CT1", "T1", "T2", "FLAIR")
RESPONSES = ("PD", "SD", "PR", "CR")
POSTOPERATIVE = ("Post-Op", "Post-Op/PD")
RANO_RATINGS = (*RESPONSES, "Pre-Op", *POSTOPERATIVE)
NO_RATING = ("", "None")
T2_PROGRESSION = "T2-Progr."
RESECTION_EXTENTS = {"CRET": "complete resection", "PRET": "partial resection"}
WEEK_PATTERN = re.compile(r"week-(\d{3})(?:-(\d+))?")
REGISTERED_FOLDER = "DeepBraTumIA-segmentation/atlas"
MASK_FILE = f"{REGISTERED_FOLDER}/segmentation/seg_mask.nii.gz"
ENHANCING_LABEL = 1
"""Of DeepBraTumIA's masks: 1 enhancing tumour, 2 necrosis, 3 oedema; measured_volumes_in_mm3.json beside them counts so."""
RELEASE_PATTERN = re.compile(r"([a-z0-9]+)_LUMIERE[^/]*/(Patient-[^/]+)/slice_(\d+)/week_([^/]+)\.png")
Grid = tuple[tuple[int, ...], tuple[float, ...]]


def registered_file(sequence: str) -> str:
    """Path of a registered volume below its visit's folder."""
    return f"{REGISTERED_FOLDER}/skull_strip/{sequence.lower()}_skull_strip.nii.gz"


@dataclass(frozen=True)
class Visit:
    """A visit with a mask: what it says of the tumour, by coronal slice of its grid."""

    folder: str
    patient: str
    week: str
    grid: Grid
    tumour_mm2: np.ndarray
    enhancing_mm2: np.ndarray
    """With what the enhancing tumour encloses."""
    enhancing_mm3: float

    @property
    def study(self) -> str:
        """The visit's study."""
        return f"{self.patient}/{self.week}"


def _order_week(week: str) -> tuple[int, int]:
    """Place of a week's name, "week-019-2", in a patient's course."""
    match = WEEK_PATTERN.fullmatch(week)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _make_grid(shape: tuple[int, ...], affine: np.ndarray) -> Grid:
    return tuple(shape), tuple(np.round(affine, 2).ravel().tolist())


def _read_visit(root: Path, folder: Path) -> Visit:
    """A visit by its mask. Raises ValueError where the mask can't be read, and FileNotFoundError."""
    note_read(folder / MASK_FILE)
    return _decode_visit(root, folder, stamp_path(folder / MASK_FILE))


@lru_cache(maxsize=4096)
def _decode_visit(root: Path, folder: Path, mask_stamp: str) -> Visit:
    """As `_read_visit`; the stamp, which is not used, makes a changed mask another one."""
    labels, affine = decode_bytes(outside_files.read_bytes(folder / MASK_FILE), nifti.read_volume)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    enhancing = np.rint(labels) == ENHANCING_LABEL
    filled_counts = np.zeros(labels.shape[1])
    for index in np.flatnonzero(enhancing.any(axis=(0, 2))):
        filled_counts[index] = binary_fill_holes(enhancing[:, index]).sum()
    pixel_area = float(spacing[0] * spacing[2])
    return Visit(
        folder=folder.relative_to(root).as_posix(),
        patient=folder.parent.name,
        week=folder.name,
        grid=_make_grid(labels.shape, affine),
        tumour_mm2=(labels > 0.5).sum(axis=(0, 2)) * pixel_area,
        enhancing_mm2=filled_counts * pixel_area,
        enhancing_mm3=float(enhancing.sum() * spacing.prod()),
    )


def _read_visits(root: Path, patient: Path, contents: SourceContents) -> list[Visit]:
    """A patient's visits whose masks lie on one grid; the others are listed with their reasons."""

    def leave_out(folder: str, reason: str, is_broken: bool = False) -> None:
        contents.rejected.append(Rejection(folder, reason, is_broken, patient.name))
        contents.skipped["visits that can't be shown"] += not is_broken

    visits = []
    for folder in sorted(list_matches(patient, "*/"), key=lambda f: (_order_week(f.name), f.name)):
        name = folder.relative_to(root).as_posix()
        if not WEEK_PATTERN.fullmatch(folder.name):
            leave_out(name, "a visit's folder is not named week-YYY", is_broken=True)
            continue
        try:
            visits.append(_read_visit(root, folder))
        except FileNotFoundError:
            leave_out(name, f"a visit without registered volumes: there is no {MASK_FILE}")
        except ValueError as error:
            leave_out(f"{name}/{MASK_FILE}", str(error), is_broken=True)
    if not visits:
        return []
    grid = Counter(v.grid for v in visits).most_common(1)[0][0]
    for visit in visits:
        if visit.grid != grid:
            leave_out(visit.folder, "lies elsewhere: its mask's grid is not that of the patient's other visits")
    return [v for v in visits if v.grid == grid]


def _choose_slice(visits: list[Visit]) -> int | None:
    """Index of the coronal slice with most enhancing tumour over all visits, of any tumour where none enhances."""
    for areas in (sum(v.enhancing_mm2 for v in visits), sum(v.tumour_mm2 for v in visits)):
        if np.any(areas):
            return int(np.argmax(areas))
    return None


def _make_picture(visit: Visit, sequence: str, index: int) -> Picture:
    release_folder = f"{sequence.lower()}_LUMIERE_images_tumor1200px_256x256"
    return Picture(
        file=f"{visit.folder}/{registered_file(sequence)}",
        part=f"slice {index}",
        decode_file=nifti.read_windowed_volume,
        read_pixels=partial(nifti.cut_coronal_slice, index=index),
        patient=visit.patient,
        study=visit.study,
        day=_order_week(visit.week)[0] * 7,
        view=sequence,
        modality="MRI",
        release_path=f"{release_folder}/{visit.patient}/slice_{index}/week_{visit.week.removeprefix('week-')}.png",
    )


def _find_obstacle(root: Path, visit: Visit, sequence: str) -> str:
    """Why a registered volume of a visit can't be shown beside its mask; empty where it can, or is broken."""
    path = root / visit.folder / registered_file(sequence)
    if not outside_files.is_file(path):
        return "a sequence that this visit lacks"
    try:
        grid = _make_grid(*decode_bytes(outside_files.read_head(path), nifti.read_grid))
    except ValueError:
        return ""  # said where the picture is read
    return "" if grid == visit.grid else "lies elsewhere: its grid is not that of the visit's mask"


def _add_picture(visit: Visit, sequence: str, index: int, contents: SourceContents, release_path: str = "") -> None:
    """Add a picture and what is known of it; `release_path` where the release names it otherwise than we would."""
    picture = _make_picture(visit, sequence, index)
    picture = replace(picture, release_path=release_path or picture.release_path)
    contents.pictures.append(picture)
    contents.add_facts(picture, picture.file, 1, {"sequence": sequence, "week": visit.week.removeprefix("week-")})
    if sequence == "CT1":
        area = f"{visit.enhancing_mm2[index]:.0f}"
        contents.add_facts(picture, f"{visit.folder}/{MASK_FILE}", 1, {"enhancing_mm2": area})


def _add_visits(root: Path, visits: list[Visit], index: int, contents: SourceContents) -> None:
    """Add the pictures of a patient's slice."""
    for visit in visits:
        for sequence in SEQUENCES:
            if obstacle := _find_obstacle(root, visit, sequence):
                item = f"{visit.folder}/{registered_file(sequence)}"
                contents.rejected.append(Rejection(item, obstacle, is_broken=False, patient=visit.patient))
                contents.skipped[f"visits without {sequence}"] += 1
            else:
                _add_picture(visit, sequence, index, contents)


@dataclass(frozen=True)
class Rating:
    """A row of the ratings table."""

    row: int
    patient: str
    week: str
    rano: str
    rationale: str

    @property
    def study(self) -> str:
        """The visit's study."""
        return f"{self.patient}/{self.week}"

    @property
    def is_t2_progression(self) -> bool:
        """Whether the disease progressed without more enhancement."""
        return self.rano == "PD" and T2_PROGRESSION in self.rationale


def _read_ratings(root: Path, contents: SourceContents) -> list[Rating]:
    """Ratings, one a visit, by patient and week; rows that can't be used are listed."""
    ratings: dict[tuple[str, str], Rating] = {}
    for number, row in enumerate(read_rows(root / RATINGS_FILE, ("Patient", "Date", RATING_COLUMN, RATIONALE_COLUMN)), 1):
        patient, week, rano, rationale = row["Patient"], row["Date"], row[RATING_COLUMN], row[RATIONALE_COLUMN]
        reason = ""
        if rano in NO_RATING:
            contents.skipped["visits without a rating"] += 1
            continue
        if rano == T2_PROGRESSION:
            rano, rationale = "PD", T2_PROGRESSION
        first = ratings.get((patient, week))
        if rano not in RANO_RATINGS:
            reason = f"rating {rano!r} is not one of {', '.join(RANO_RATINGS)}"
        elif not WEEK_PATTERN.fullmatch(week):
            reason = f"Date is {week!r}, expected week-YYY"
        elif first is None:
            ratings[patient, week] = Rating(number, patient, week, rano, rationale)
        elif rano != first.rano:
            reason = f"rating {rano!r}, but {first.rano!r} in row {first.row}"
        else:
            contents.skipped["rows that repeat a rating"] += 1
        if reason:
            contents.rejected.append(Rejection(f"{RATINGS_FILE} row {number}", reason, patient=patient))
    return sorted(ratings.values(), key=lambda r: (r.patient, _order_week(r.week), r.row))


def _iter_references(ratings: list[Rating], visits: dict[str, Visit]) -> Iterator[tuple[Rating, Visit | None]]:
    """The responses of a patient, in order, each with the visit that RANO rates it against; None where that is unknown.

    Progression is rated against the scan with least enhancing tumour so far (nadir), other responses against the first
    (baseline). A course of treatment begins with a postoperative scan, and anew with one that is rated PD.
    """
    course: list[Visit | None] = []
    for rating in ratings:
        visit = visits.get(rating.study)
        if rating.rano in RESPONSES:
            known_visits = [v for v in course if v is not None]
            reference = course[0] if course else None
            if rating.rano == "PD":
                is_known = len(known_visits) == len(course)
                # Of equal scans the latest, which is nearest to the one rated.
                reference = min(reversed(known_visits), key=lambda v: v.enhancing_mm3, default=None) if is_known else None
            yield rating, reference
        if rating.rano in POSTOPERATIVE or rating.rano == "PD":
            course = [visit]
        elif rating.rano == "Pre-Op":
            course = []
        elif course:
            course.append(visit)


def _add_ratings(root: Path, visits: dict[str, Visit], unread_patients: Collection[str], contents: SourceContents) -> None:
    """Add the expert's ratings, but for those of patients that were not read, and the scans that they refer to."""
    shown_studies = {p.study for p in contents.pictures}

    def add_facts(rating: Rating, facts: dict[str, str]) -> None:
        for name, value in facts.items():
            fact = Fact(name=name, value=value, patient=rating.patient, study=rating.study, table=RATINGS_FILE, row=rating.row)
            contents.facts.append(fact)

    ratings = [r for r in _read_ratings(root, contents) if r.patient not in unread_patients]
    contents.rejected = [r for r in contents.rejected if r.patient not in unread_patients]
    for rating in ratings:
        if rating.study not in shown_studies:
            item, reason = f"{RATINGS_FILE} row {rating.row}", f"a rating of a visit that isn't shown, {rating.study}"
            contents.rejected.append(Rejection(item, reason, is_broken=False, patient=rating.patient))
            contents.skipped["ratings of visits that aren't shown"] += 1
            continue
        facts = {"rano": rating.rano} | ({"progression": "T2"} if rating.is_t2_progression else {})
        if rating.rano in POSTOPERATIVE:
            extents = set(re.findall(rf"\b({'|'.join(RESECTION_EXTENTS)})\b", rating.rationale))
            if len(extents) == 1:
                facts["resection"] = RESECTION_EXTENTS[extents.pop()]
            else:
                contents.skipped["postoperative ratings without an extent of resection"] += 1
        add_facts(rating, facts)
    for _, patient_ratings in groupby(ratings, key=lambda r: r.patient):
        for rating, reference in _iter_references(list(patient_ratings), visits):
            if reference is not None and {reference.study, rating.study} <= shown_studies:
                add_facts(rating, {"reference": reference.week.removeprefix("week-")})
            else:
                contents.skipped["responses whose reference scan isn't known or shown"] += 1


def read_contents(root: Path) -> SourceContents:
    """Pictures and facts of a LUMIERE folder: Imaging/Patient-XXX/week-YYY/ and the rating table. Raises UserError."""
    return read_limited_contents(root, None)


def read_limited_contents(root: Path, limit: int | None) -> SourceContents:
    """As `read_contents`, of the first `limit` patients who have a picture: the masks of the others are not read."""
    imaging = root / "Imaging"
    if not outside_files.is_folder(imaging):
        raise UserError(f"{root}: no folder Imaging here; expected LUMIERE's layout, Imaging/Patient-XXX/week-YYY/{MASK_FILE}")
    contents = SourceContents()
    visits: dict[str, Visit] = {}
    unread_patients = order_patients(patient.name for patient in list_matches(imaging, "Patient-*/"))
    while unread_patients and len({v.patient for v in visits.values()}) != limit:
        patient = imaging / unread_patients.pop(0)
        patient_visits = _read_visits(root, patient, contents)
        index = _choose_slice(patient_visits) if patient_visits else None
        if index is not None:
            _add_visits(root, patient_visits, index, contents)
            visits |= {v.study: v for v in patient_visits}
        elif patient_visits:
            item = patient.relative_to(root).as_posix()
            contents.rejected.append(Rejection(item, "no mask shows a tumour", is_broken=False, patient=patient.name))
    if not visits:
        raise UserError(
            f"{imaging}: no visit has registered volumes and a mask that shows a tumour: expected "
            f"Patient-XXX/week-YYY/{MASK_FILE}"
        )
    if unread_patients:
        contents.skipped[f"patients beyond the limit of {limit}"] = len(unread_patients)
    _add_ratings(root, visits, unread_patients, contents)
    return contents


def add_released_pictures(root: Path, contents: SourceContents, paths: Collection[str]) -> None:
    """Add the slices that the release names, if not chosen already; list those of LUMIERE that can't be found."""
    chosen_keys = {p.key for p in contents.pictures}
    matches = [match for path in paths if (match := RELEASE_PATTERN.fullmatch(path))]
    named_slices = sorted((match[2], match[4], match[1], int(match[3]), match[0]) for match in matches)
    for (patient, week), group in groupby(named_slices, key=lambda s: s[:2]):
        folder = root / "Imaging" / patient / f"week-{week}"
        visit, visit_obstacle = None, ""
        try:
            visit = _read_visit(root, folder)
        except FileNotFoundError:
            visit_obstacle = f"there is no {MASK_FILE} of {patient}, week-{week}"
        except ValueError as error:
            visit_obstacle = str(error)
        for _, _, release_sequence, index, path in group:
            sequence = release_sequence.upper()
            obstacle = visit_obstacle
            if visit is not None:
                if sequence not in SEQUENCES:
                    obstacle = f"sequence {release_sequence} is not one of {', '.join(SEQUENCES)}"
                elif index >= visit.grid[0][1]:
                    obstacle = f"the visit's grid has {visit.grid[0][1]} coronal slices"
                else:
                    obstacle = _find_obstacle(root, visit, sequence)
            if obstacle or visit is None:
                contents.rejected.append(Rejection(path, f"named by the release: {obstacle}", is_broken=False, patient=patient))
                contents.skipped["pictures of the release that can't be found"] += 1
            elif _make_picture(visit, sequence, index).key not in chosen_keys:
                _add_picture(visit, sequence, index, contents, path)

"""The images and findings tables as patients with their studies and images, in a fixed order."""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pandas as pd

IMAGE_COLUMNS = ["image_id", "patient_id", "study_id", "day", "view", "laterality", "modality", "release_path"]
FINDING_COLUMNS = ["finding_id", "patient_id", "study_id", "image_id", "name", "value"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement of the source: its id and value."""

    id: str
    value: str


@dataclass(slots=True)
class FindingsHolder:
    """What the source states of a patient, study or image: findings by name, in the table's order."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)

    def unique_finding(self, name: str) -> Finding | None:
        """The finding of this name; None where there is none or the source contradicts itself."""
        same_name = self.findings.get(name, [])
        return same_name[0] if same_name and all(f.value == same_name[0].value for f in same_name) else None


@dataclass(slots=True)
class Image(FindingsHolder):
    """One image of a study; `day` counts from the patient's first study, None if unknown."""

    image_id: str = ""
    patient_id: str = ""
    study_id: str = ""
    day: int | None = None
    view: str = ""
    laterality: str = ""
    modality: str = ""
    release_path: str = ""


@dataclass(slots=True)
class Study(FindingsHolder):
    """One study with its images, ordered by path and id."""

    study_id: str = ""
    patient_id: str = ""
    day: int | None = None
    images: list[Image] = field(default_factory=list)


@dataclass(slots=True)
class Patient(FindingsHolder):
    """One patient with the studies, ordered by day and id."""

    patient_id: str = ""
    studies: list[Study] = field(default_factory=list)

    def iter_images(self) -> Iterator[Image]:
        """All images, study by study."""
        for study in self.studies:
            yield from study.images


def _iter_rows(frame: pd.DataFrame, columns: list[str], chunk_rows: int = 1 << 14) -> Iterator[tuple[Any, ...]]:
    """Rows as tuples, part by part: a whole frame of texts as Python's strings takes several times its size."""
    for start in range(0, len(frame), chunk_rows):
        yield from zip(*(frame[c].iloc[start : start + chunk_rows].tolist() for c in columns), strict=True)


def build_cohort(images: pd.DataFrame, findings: pd.DataFrame) -> list[Patient]:
    """Patients sorted by id, from frames with IMAGE_COLUMNS and FINDING_COLUMNS.

    Images that two patients share are left out: a question about one would name the other. So are findings of a study
    or image that is not in `images`.
    """
    owners = images.groupby("image_id")["patient_id"].nunique()
    images = images[~images["image_id"].isin(owners.index[owners > 1])]
    patients: dict[str, Patient] = {}
    studies: dict[str, Study] = {}
    images_by_key: dict[tuple[str, str], Image] = {}
    for image_id, patient_id, study_id, raw_day, view, laterality, modality, path in _iter_rows(images, IMAGE_COLUMNS):
        day = None if pd.isna(raw_day) else int(raw_day)
        patient = patients.setdefault(patient_id, Patient(patient_id=patient_id))
        if study_id not in studies:
            studies[study_id] = Study(study_id=study_id, patient_id=patient_id, day=day)
            patient.studies.append(studies[study_id])
        if (study_id, image_id) not in images_by_key:  # the same pixels twice in a study are one image
            image = Image({}, image_id, patient_id, study_id, day, view, laterality, modality, path)
            images_by_key[study_id, image_id] = image
            studies[study_id].images.append(image)
    for finding_id, patient_id, study_id, image_id, name, value in _iter_rows(findings, FINDING_COLUMNS):
        holder = (
            images_by_key.get((study_id, image_id))
            if image_id
            else studies.get(study_id)
            if study_id
            else patients.get(patient_id)
        )
        if holder is not None:
            holder.findings.setdefault(name, []).append(Finding(finding_id, value))
    for study in studies.values():
        study.images.sort(key=lambda i: (i.release_path, i.image_id))
    for patient in patients.values():
        patient.studies.sort(key=lambda s: (s.day is None, s.day or 0, s.study_id))
    return [patients[p] for p in sorted(patients)]


T = TypeVar("T")


def hash_position(*names: object) -> int:
    """A place on the ring of 64-bit numbers, by the names' content."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, names)).encode()).digest()[:8], "big")


class HashRing(Generic[T]):
    """Items on a circle by the hash of their key: who is drawn next to whom changes little as items are added."""

    def __init__(self, items: Iterable[T], key: Callable[[T], str]) -> None:
        self._items = sorted(((hash_position(key(i)), i) for i in items), key=lambda p: p[0])
        self._positions = [p for p, _ in self._items]

    def iter_after(self, *names: object) -> Iterator[T]:
        """All items, once round, from the place of the names on."""
        start = bisect_left(self._positions, hash_position(*names))
        for n in range(len(self._items)):
            yield self._items[(start + n) % len(self._items)][1]

    def draw_distinct(self, n: int, taken: set[str], owner: Callable[[T], str], *names: object) -> list[T]:
        """The first n items after the names whose owners are distinct and not `taken`; fewer where there are not enough."""
        drawn: list[T] = []
        taken = set(taken)
        for item in self.iter_after(*names):
            if len(drawn) == n:
                break
            if owner(item) not in taken:
                taken.add(owner(item))
                drawn.append(item)
        return drawn

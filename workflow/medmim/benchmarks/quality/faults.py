"""What is wrong with a benchmark: its faults, how it overlaps with training, and what answering without looking scores.

Works on release files and on our qa tables alike, and across the two.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medmim.benchmarks.released.records import Record, ReleaseError, origin_from_path, parse_question, read_records
from medmim.questions.copies import CopyIndex
from medmim.questions.prompt import LETTERS, count_placeholders, strip_placeholders
from medmim.tables import table_io

RELEASE_PREFIX = "release/"
QA_COLUMNS = [
    "qa_id",
    "set",
    "task",
    "kind",
    "question",
    "options",
    "answer",
    "answer_index",
    "image_ids",
    "patient_ids",
    "source",
]
# Faults of single records, in the order in which they are told.
FAULTS = (
    "same_images_in_train",
    "shares_image_with_train",
    "shares_patient_with_train",
    "duplicate_ids",
    "duplicate_records",
    "duplicate_options",
    "gold_not_in_options",
    "placeholder_mismatch",
)

NEAR_COPY = "shares_near_copy_with_train"
"""A leak that is looked for where the pictures were compared."""


@dataclass(frozen=True)
class Entry:
    """One question as the audit sees it, released or ours. `letters` are those of its options as written; `question_text`
    is its text without placeholders and options; `task` says how it was made, of a released one in the release's words."""

    file: str
    place: str
    id: str
    source: str
    images: tuple[str, ...]
    patients: frozenset[str]
    closed: bool
    letters: tuple[str, ...]
    options: tuple[str, ...]
    gold: int | None
    letter: str
    placeholders: int
    question_text: str
    answer: str
    content: tuple[Any, ...]
    task: str


@dataclass
class SetAudit:
    """Audit of one benchmark set.

    `where`: per fault, the entries that have it, each with its other: of a leak a training question that shares it, of
    a repeat the question repeated, else None. `sources`: the same of each source's questions.
    """

    entries: list[Entry]
    where: dict[str, list[tuple[Entry, Entry | None]]]
    sources: dict[str, "SetAudit"] = field(default_factory=dict)

    @property
    def closed_entries(self) -> list[Entry]:
        """The closed questions."""
        return [e for e in self.entries if e.closed]

    def compute_figures(self) -> dict[str, Any]:
        """The set's figures, as the audit's JSON gives them.

        records, closed, open: questions; closed are those with lettered options or a lettered answer.
        same_images_in_train: questions all of whose images, each as often and in any order, are those of one training
        question. shares_image_with_train: with at least one image of training. shares_patient_with_train: with at
        least one patient of training. Each includes the one before. Where the pictures were compared, images are the same
        by their pixels, whatever their names, and shares_near_copy_with_train counts questions with an image that is a near copy
        of one of training, of another patient by the ids.
        duplicate_ids: questions less distinct ids. duplicate_records: questions less distinct contents (images, turns).
        duplicate_options: closed questions that list an option text twice. gold_not_in_options: closed questions whose
        answer names no option by letter and text. placeholder_mismatch: questions with another number of <image> than
        images.
        letters: closed questions by the letter of the gold, as written. chance: mean of 1 / options over the closed
        questions that list any. majority: share of the closed questions that the most frequent gold letter answers.
        Both are null without closed questions.
        patients: distinct patients. largest_patient: the one with most questions (the first of equals, by name), how
        many, and their share; null without patients.
        """
        closed = self.closed_entries
        letters = Counter(e.letter for e in closed if e.letter)
        patients = Counter(p for e in self.entries for p in sorted(e.patients))
        option_counts = [len(e.options) for e in closed if e.options]
        largest = min(patients, key=lambda p: (-patients[p], p), default=None)
        return {
            "records": len(self.entries),
            "closed": len(closed),
            "open": len(self.entries) - len(closed),
            **{fault: len(self.where[fault]) for fault in (*FAULTS, NEAR_COPY) if fault in self.where},
            "letters": dict(sorted(letters.items())),
            "patients": len(patients),
            "largest_patient": largest
            and {"patient": largest, "records": patients[largest], "share": patients[largest] / len(self.entries)},
            "chance": sum(1 / n for n in option_counts) / len(option_counts) if option_counts else None,
            "majority": max(letters.values(), default=0) / len(closed) if closed else None,
        }


@dataclass(frozen=True)
class Training:
    """The training questions by set, and what they show, each with the first of them that does: all images of one
    (sorted), images, patients."""

    sets: dict[str, list[Entry]]
    image_sets: dict[tuple[str, ...], Entry]
    images: dict[str, Entry]
    patients: dict[str, Entry]
    near_copies: Mapping[str, Sequence[str]] | None = None
    """Of images of the benchmark their near copies in training; None where the pictures were not compared."""

    @property
    def questions(self) -> int:
        """How many there are."""
        return sum(map(len, self.sets.values()))

    def find_leaks(self, entry: Entry) -> dict[str, Entry]:
        """The leaks of a question, each with a training question that shares it."""
        twins = {
            "same_images_in_train": self.image_sets.get(tuple(sorted(entry.images))),
            "shares_image_with_train": next((self.images[i] for i in entry.images if i in self.images), None),
            "shares_patient_with_train": next((self.patients[p] for p in sorted(entry.patients) if p in self.patients), None),
        }
        copies = (copy for image in entry.images for copy in (self.near_copies or {}).get(image, ()))
        twins[NEAR_COPY] = next((self.images[copy] for copy in copies if copy in self.images), None)
        return {leak: twin for leak, twin in twins.items() if twin is not None}


def _entry_from_record(record: Record) -> Entry:
    parsed = parse_question(record)
    origins = [origin_from_path(image) for image in record.images]
    return Entry(
        file=record.file,
        place=f"record {record.number}, line {record.line}",
        id=record.id,
        source=" + ".join(sorted({o[0] if o else "unknown" for o in origins})) or "none",
        images=record.images,
        # An image of no known source counts as a patient of its own: better too many than two taken for one.
        patients=frozenset(o[1] if o else f"unknown/{image}" for o, image in zip(origins, record.images, strict=True)),
        closed=parsed.is_closed,
        letters=tuple(letter for letter, _ in parsed.options),
        options=tuple(text for _, text in parsed.options),
        gold=parsed.gold,
        letter=parsed.letter,
        placeholders=parsed.placeholders,
        question_text=parsed.text,
        answer=parsed.answer,
        content=(record.images, record.turns),
        task=record.source,
    )


def _entry_from_row(file: str, number: int, row: dict[str, Any]) -> Entry:
    options, index = tuple(row["options"]), row["answer_index"]
    is_valid = index is not None and 0 <= index < len(options) and options[index] == row["answer"]
    letter = LETTERS[index] if index is not None and 0 <= index < len(LETTERS) else ""
    images = tuple(image.removeprefix(RELEASE_PREFIX) for image in row["image_ids"])
    return Entry(
        file=file,
        place=f"row {number}",
        id=row["qa_id"],
        source=row["source"],
        images=images,
        patients=frozenset(row["patient_ids"]),
        closed=row["kind"] == "closed",
        letters=tuple(LETTERS[: len(options)]),
        options=options,
        gold=index if is_valid else None,
        letter=letter,
        placeholders=count_placeholders(row["question"]),
        question_text=strip_placeholders(row["question"]),
        answer=row["answer"],
        content=(row["question"], options, row["answer"], images),
        task=row["task"],
    )


def read_sets(path: Path) -> Iterator[tuple[str, list[Entry]]]:
    """(name, questions) of a file: a release file is one set of the file's name, a qa table one per value of `set`.

    Rows of a table count from 0. Raises ReleaseError, tables.TableError.
    """
    if path.suffix != ".parquet":
        yield path.name, [_entry_from_record(record) for record in read_records(path)]
        return
    entries_by_set: dict[str, list[Entry]] = defaultdict(list)
    for number, row in enumerate(table_io.read_table(path, "qa", QA_COLUMNS).to_pylist()):
        entries_by_set[row["set"]].append(_entry_from_row(path.name, number, row))
    yield from sorted(entries_by_set.items())


def _map_names(copies: CopyIndex | None) -> dict[str, str]:
    """One name for all names of the same pixels, as entries have them."""
    pairs = copies.map_exact_names().items() if copies else ()
    return {name.removeprefix(RELEASE_PREFIX): other.removeprefix(RELEASE_PREFIX) for name, other in pairs}


def _list_near_copies(copies: CopyIndex, names: Mapping[str, str]) -> dict[str, list[str]]:
    """Near copies in training by image of the benchmark, as entries name them."""

    def rename(image: str) -> str:
        bare = image.removeprefix(RELEASE_PREFIX)
        return names.get(bare, bare)

    return {rename(image): [rename(other) for other in others] for image, others in copies.list_near_copies().items()}


def _rename_images(entries: Iterable[Entry], names: Mapping[str, str]) -> list[Entry]:
    """Entries with one name for images of the same pixels."""
    return [replace(e, images=tuple(names.get(i, i) for i in e.images)) if names.keys() & set(e.images) else e for e in entries]


def index_training(paths: Sequence[Path], copies: CopyIndex | None = None) -> Training:
    """What the training questions of all files show. Raises ReleaseError, tables.TableError."""
    names = _map_names(copies)
    index = Training({}, {}, {}, {}, _list_near_copies(copies, names) if copies else None)
    for path in paths:
        for name, entries in read_sets(path):
            index.sets.setdefault(name, []).extend(_rename_images(entries, names))
    for entry in (e for entries in index.sets.values() for e in entries):
        if entry.images:
            index.image_sets.setdefault(tuple(sorted(entry.images)), entry)
        for image in entry.images:
            index.images.setdefault(image, entry)
        for patient in entry.patients:
            index.patients.setdefault(patient, entry)
    return index


def audit_set(entries: list[Entry], train: Training, *, by_source: bool = True) -> SetAudit:
    """Audit of the questions of one set against the training questions."""
    leaks = FAULTS[:3] if train.near_copies is None else (*FAULTS[:3], NEAR_COPY)
    where: dict[str, list[tuple[Entry, Entry | None]]] = {fault: [] for fault in (*leaks, *FAULTS[3:], "skipped_letters")}
    ids: dict[str, Entry] = {}
    contents: dict[tuple[Any, ...], Entry] = {}
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        for leak, twin in train.find_leaks(entry).items():
            where[leak].append((entry, twin))
        if (twin := ids.setdefault(entry.id, entry)) is not entry:
            where["duplicate_ids"].append((entry, twin))
        if (twin := contents.setdefault(entry.content, entry)) is not entry:
            where["duplicate_records"].append((entry, twin))
        if entry.closed and len(set(entry.options)) < len(entry.options):
            where["duplicate_options"].append((entry, None))
        if entry.closed and entry.gold is None:
            where["gold_not_in_options"].append((entry, None))
        if entry.placeholders != len(entry.images):
            where["placeholder_mismatch"].append((entry, None))
        if entry.closed and entry.letters != tuple(LETTERS[: len(entry.letters)]):
            where["skipped_letters"].append((entry, None))
        if by_source:
            groups[entry.source].append(entry)
    return SetAudit(entries, where, {s: audit_set(g, train, by_source=False) for s, g in sorted(groups.items())})


def audit_files(
    train: Sequence[Path], benchmark: Sequence[Path], copies: CopyIndex | None = None
) -> tuple[Training, dict[str, SetAudit]]:
    """Audit every set of the benchmark files against all training files: release JSON or qa tables, mixed as you like.

    `copies`: images of the benchmark that are copies of training's, where the pictures were compared.
    Returns what training shows, and the audits by name: of a release file its file name, of a qa table its sets.
    Raises ReleaseError for a file that can't be read or a name that comes twice, tables.TableError.
    """
    training_index, names = index_training(train, copies), _map_names(copies)
    audits: dict[str, SetAudit] = {}
    for path in benchmark:
        for name, entries in read_sets(path):
            if name in audits:
                raise ReleaseError(f"{path}: there is a benchmark set named {name} already: audit them one at a time")
            audits[name] = audit_set(_rename_images(entries, names), training_index)
    return training_index, audits

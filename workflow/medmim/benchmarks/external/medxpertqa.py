"""MedXpertQA MM (Zuo et al. 2025, arXiv 2501.18362): exam questions with images, those that show several. MIT licence.

Published as huggingface.co/datasets/TsinghuaC3I/MedXpertQA: MM/test.jsonl, 2,000 records, and images.zip, which may also lie
unpacked in images/. A record, by the dataset's card: id ("MM-26"), question, with the options once more behind "Answer Choices:",
options ({letter: text}, A to E), label (a letter), images (file names such as MM-26-a.jpeg; where in the archive they lie is not
said, so they are found by name), medical_task, body_system, question_type. 1,581 records show one image and are left out.

Who the patients are, nobody says: each question counts as one of its own. The task is medical_task.
"""

import string
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from medmim.benchmarks.external.base import Case, letter
from medmim.common.errors import UserError
from medmim.sources.base import Rejection
from medmim.sources.readers.tabular import records
from medmim.sources.readers.tar_member import LARGEST

RECORDS, ARCHIVE, FOLDER = "MM/test.jsonl", "images.zip", "images"
KEYS = ("id", "question", "options", "label", "images", "medical_task")
REPEATED = "Answer Choices:"
Image = tuple[str, Callable[[], bytes]]


def cases(root: Path) -> Iterator[Case | Rejection]:
    """The records of a folder in order. Raises UserError for another layout."""
    path = root / RECORDS
    if not path.is_file():
        raise UserError(f"{root}: no {RECORDS} here; expected the folder as TsinghuaC3I/MedXpertQA publishes it")
    images = _images(root)
    seen: dict[str, int] = {}
    for number, record in enumerate(records(path, KEYS), 1):
        try:
            case = _case(f"record {number}", record, images)
            if (other := seen.setdefault(case.id, number)) != number:
                raise ValueError(f"id {case.id} is that of record {other}")
        except ValueError as error:
            yield Rejection(f"{RECORDS} record {number}", str(error))
            continue
        yield case


def _images(root: Path) -> dict[str, Image]:
    """Every image by its bare name. Raises UserError where there are none, or two of one name."""
    found: dict[str, Image] = {}
    if (path := root / ARCHIVE).is_file():
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path}: can't be read as a zip, perhaps cut off: {error}") from error
        members = [m for m in archive.infolist() if not m.is_dir() and "__MACOSX" not in m.filename]
        alone = Lock()
        listed = [(m.filename, f"{ARCHIVE}!{m.filename}", partial(_member, archive, alone, m)) for m in members]
    elif (root / FOLDER).is_dir():
        here = sorted(p for p in (root / FOLDER).rglob("*") if p.is_file())
        listed = [(p.name, p.relative_to(root).as_posix(), p.read_bytes) for p in here]  # type: ignore[misc]
    else:
        raise UserError(
            f"{root}: neither {ARCHIVE} nor {FOLDER}/ here; expected the folder as TsinghuaC3I/MedXpertQA publishes it"
        )
    for name, file, load in listed:
        bare = PurePosixPath(name).name
        if bare in found:
            raise UserError(f"{root}: two images named {bare}: {found[bare][0]} and {file}")
        found[bare] = (file, load)
    return found


def _member(archive: zipfile.ZipFile, alone: Lock, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > LARGEST:
        raise ValueError(f"{member.filename} has {member.file_size} bytes; at most {LARGEST} are read")
    with alone:
        return archive.read(member)


def _absent(name: str) -> bytes:
    raise FileNotFoundError(f"no image {name}")


def _case(item: str, record: dict[str, Any], images: dict[str, Image]) -> Case:
    options, names = record["options"], record["images"]
    letters = string.ascii_uppercase[: len(options)] if isinstance(options, dict) else ""
    if not letters or sorted(options) != list(letters) or not all(isinstance(text, str) for text in options.values()):
        raise ValueError("options are not texts under the letters A, B, ...")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError("images is not a list of file names")
    if odd := [k for k in ("id", "question", "label", "medical_task") if not isinstance(record[k], str) or not record[k].strip()]:
        raise ValueError(f"{', '.join(odd)} is empty or no text")
    question, _, repeated = record["question"].rpartition(REPEATED)
    if not question or any(text not in repeated for text in options.values()):
        question = record["question"]
    return Case(
        file=RECORDS,
        item=item,
        id=record["id"],
        question=question,
        options=tuple(options[x] for x in letters),
        gold=letter(record["label"].strip(), len(letters)),
        images=tuple(images.get(n) or (f"{FOLDER}/{n}", partial(_absent, n)) for n in names),
        patient=record["id"],
        task=record["medical_task"],
    )

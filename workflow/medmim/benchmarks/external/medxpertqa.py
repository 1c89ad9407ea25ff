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

from medmim.benchmarks.external.base import Case, ExternalSet, letter_index
from medmim.common.errors import UserError
from medmim.common.files import list_files
from medmim.sources.base import Rejection
from medmim.sources.readers.tar_member import MAX_FILE_BYTES
from medmim.tables.outside_tables import read_records

RECORDS_FILE, ARCHIVE_FILE, IMAGE_FOLDER = "MM/test.jsonl", "images.zip", "images"
RECORD_KEYS = ("id", "question", "options", "label", "images", "medical_task")
OPTIONS_HEADING = "Answer Choices:"
Image = tuple[str, Callable[[], bytes]]


def read_cases(root: Path) -> Iterator[Case | Rejection]:
    """The records of a folder in order. Raises UserError for another layout."""
    path = root / RECORDS_FILE
    if not path.is_file():
        raise UserError(f"{root}: no {RECORDS_FILE} here; expected the folder as TsinghuaC3I/MedXpertQA publishes it")
    images = _index_images(root)
    first_numbers: dict[str, int] = {}
    for number, record in enumerate(read_records(path, RECORD_KEYS), 1):
        try:
            case = _parse_case(f"record {number}", record, images)
            if (first_number := first_numbers.setdefault(case.id, number)) != number:
                raise ValueError(f"id {case.id} is that of record {first_number}")
        except ValueError as error:
            yield Rejection(f"{RECORDS_FILE} record {number}", str(error))
            continue
        yield case


def _index_images(root: Path) -> dict[str, Image]:
    """Every image by its bare name. Raises UserError where there are none, or two of one name."""
    images_by_name: dict[str, Image] = {}
    if (path := root / ARCHIVE_FILE).is_file():
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path}: can't be read as a zip, perhaps cut off: {error}") from error
        members = [m for m in archive.infolist() if not m.is_dir() and "__MACOSX" not in m.filename]
        lock = Lock()
        entries = [(m.filename, f"{ARCHIVE_FILE}!{m.filename}", partial(_read_member, archive, lock, m)) for m in members]
    elif (root / IMAGE_FOLDER).is_dir():
        image_paths = list_files(root / IMAGE_FOLDER)
        entries = [(p.name, p.relative_to(root).as_posix(), p.read_bytes) for p in image_paths]  # type: ignore[misc]
    else:
        raise UserError(
            f"{root}: neither {ARCHIVE_FILE} nor {IMAGE_FOLDER}/ here; expected the folder as TsinghuaC3I/MedXpertQA publishes it"
        )
    for name, file, load in entries:
        base_name = PurePosixPath(name).name
        if base_name in images_by_name:
            raise UserError(f"{root}: two images named {base_name}: {images_by_name[base_name][0]} and {file}")
        images_by_name[base_name] = (file, load)
    return images_by_name


def _read_member(archive: zipfile.ZipFile, lock: Lock, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MAX_FILE_BYTES:
        raise ValueError(f"{member.filename} has {member.file_size} bytes; at most {MAX_FILE_BYTES} are read")
    with lock:
        return archive.read(member)


def _raise_missing(name: str) -> bytes:
    raise FileNotFoundError(f"no image {name}")


def _parse_case(item: str, record: dict[str, Any], images: dict[str, Image]) -> Case:
    options, names = record["options"], record["images"]
    letters = string.ascii_uppercase[: len(options)] if isinstance(options, dict) else ""
    if not letters or sorted(options) != list(letters) or not all(isinstance(text, str) for text in options.values()):
        raise ValueError("options are not texts under the letters A, B, ...")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError("images is not a list of file names")
    if invalid_keys := [
        k for k in ("id", "question", "label", "medical_task") if not isinstance(record[k], str) or not record[k].strip()
    ]:
        raise ValueError(f"{', '.join(invalid_keys)} is empty or no text")
    question, _, repeated = record["question"].rpartition(OPTIONS_HEADING)
    if not question or any(text not in repeated for text in options.values()):
        question = record["question"]
    return Case(
        file=RECORDS_FILE,
        item=item,
        id=record["id"],
        question=question,
        options=tuple(options[x] for x in letters),
        gold=letter_index(record["label"].strip(), len(letters)),
        images=tuple(images.get(n) or (f"{IMAGE_FOLDER}/{n}", partial(_raise_missing, n)) for n in names),
        patient=record["id"],
        task=record["medical_task"],
    )


EXTERNAL_SET = ExternalSet(
    label="MedXpertQA MM",
    repository="TsinghuaC3I/MedXpertQA",
    files=(RECORDS_FILE, ARCHIVE_FILE),
    licence="MIT",
    published="2,000 questions, of which 419 show several images",
    read_cases=read_cases,
)

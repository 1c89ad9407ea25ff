"""Held-out sets as others publish them become questions and images of ours.

Each set is a module of this package that defines EXTERNAL_SET: what it is called, where it is published, on which terms, and
`read_cases(root)`, which reads a folder in its authors' layout and yields what each question states, its images yet unread, or
why it can't be used. `HeldoutImporter` reads the images and gives the rows.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.errors import ABSENCE_ERRORS, UserError
from medmim.common.isolated_processes import ProcessDeath, map_isolated
from medmim.common.outside_files import is_read_error, translate_read_errors
from medmim.questions.prompt import strip_placeholders
from medmim.questions.row import question_row
from medmim.questions.validation import check_row
from medmim.sources.base import Rejection
from medmim.sources.readers import raster
from medmim.sources.rendering import RenderedImage, describe_death, describe_error, render_image
from medmim.tables.data_policy import UNSTATED_LICENCE
from medmim.tables.rejections import summarize_rejections

STAGE = "import_heldout"
MIN_IMAGES = 2
"""Images: the benchmark is of questions about several."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question as published. `file` states it, its row or record is `item`; both name it where it is turned away.

    `images`: of each the file below the set's folder ('<archive>!<member>'), and what loads its bytes. `patient` is unique within
    the set and stands for what its authors say of whom the images show.
    """

    file: str
    item: str
    id: str
    question: str
    options: tuple[str, ...]
    gold: int
    images: tuple[tuple[str, Callable[[], bytes]], ...]
    patient: str
    task: str
    modality: str = ""


Adapter = Callable[[Path], Iterable[Case | Rejection]]


@dataclass(frozen=True, kw_only=True)
class ExternalSet:
    """A held-out set as its authors publish it: each module of this package defines one, as EXTERNAL_SET."""

    label: str
    """Name for people."""
    repository: str
    """Where it is on the hub."""
    files: tuple[str, ...]
    """Patterns of the files there that are read; the card comes with them."""
    licence: str
    """Its licence, as its authors state it."""
    model_terms: str = UNSTATED_LICENCE
    """What its terms mean for a model that was trained on it."""
    published: str
    """What is published of its size."""
    read_cases: Adapter
    """Reads a folder in its authors' layout."""

    def describe_terms(self) -> dict[str, str]:
        """Return its terms in the form of a source's, as medmim.config.source_plugins.Terms has them."""
        return {
            "title": f"{self.label}, {self.repository}",
            "licence": self.licence,
            "terms": f"https://huggingface.co/datasets/{self.repository}",
            "model_terms": self.model_terms,
            "access": "open",
            "published": self.published,
        }


def load_external_set(name: str) -> ExternalSet:
    """Return the held-out set of a module of this package. Raises UserError where the module defines none."""
    found = getattr(import_module(f"medmim.benchmarks.external.{name}"), "EXTERNAL_SET", None)
    if not isinstance(found, ExternalSet):
        raise UserError(f"medmim/benchmarks/external/{name}.py: EXTERNAL_SET is no ExternalSet; docs/extending.md shows one")
    return found


def letter_index(answer: object, count: int) -> int:
    """Index of an answer's letter among `count` options. Raises ValueError."""
    index = ord(answer) - ord("A") if isinstance(answer, str) and len(answer) == 1 else -1
    if not 0 <= index < count:
        raise ValueError(f"the answer is {answer!r}, no letter of its {count} options")
    return index


def make_slug(text: str) -> str:
    """A word for names: 'Basic Medicine' becomes basic_medicine."""
    return "_".join(text.lower().split()) or "unknown"


def _render_loaded(size: int, loaded: bytes | str) -> RenderedImage | str:
    return loaded if isinstance(loaded, str) else render_image(loaded, raster.read_pixels, size)


@dataclass
class HeldoutImporter:
    """Turns cases into rows: first iterate `iter_image_rows`, then take `rows` and `rejection_rows`.

    The same pixels in two questions are one image, of the patient of the first; the second question then has both patients, as
    what is said of one is not independent of the other. A question with a broken image is turned away whole.
    `limit`: the cases whose ids have the lowest hashes. `index`: sha256 of each file below root, checked before its first use.
    """

    name: str
    root: Path
    read_cases: Adapter
    index: Mapping[str, str]
    size: int
    limit: int | None = None
    threads: int = 1
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    single_image_count: int = 0
    """Questions left out as they show one image or none."""

    def __post_init__(self) -> None:
        self._checked_files: set[str] = set()
        self._patients: dict[str, str] = {}  # of images, by image_id
        self._first_items: dict[str, str] = {}  # item, by qa_id
        content = "".join(f"{path}\0{sha256}\n" for path, sha256 in sorted(self.index.items()))
        self._generator = f"released/{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def iter_image_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the images table, in the order of the questions. Raises UserError where a file is not as the index has it."""
        loaded_cases: deque[Case] = deque()
        results: list[RenderedImage | str] = []
        for result in map_isolated(partial(_render_loaded, self.size), self._load_images(loaded_cases), self.threads):
            case = loaded_cases[0]
            file = case.images[len(results)][0]
            results.append(describe_death(result, self.root / file) if isinstance(result, ProcessDeath) else result)
            if len(results) == len(case.images):
                yield from self._add_case(loaded_cases.popleft(), results)
                results = []

    def _load_images(self, loaded_cases: deque[Case]) -> Iterator[bytes | str]:
        """Bytes of each image of the selected cases, which are put in the queue, or the reason why there are none."""
        for case in self._select_cases():
            for file in {case.file, *(file for file, _ in case.images)}:
                self._check_file(file.partition("!")[0])
            loaded_cases.append(case)
            for file, load in case.images:
                yield self._load_image(file, load)

    def _load_image(self, file: str, load: Callable[[], bytes]) -> bytes | str:
        with translate_read_errors(self.root / file):
            try:
                return load()
            except Exception as error:  # an archive's member may be broken in any way
                is_absent = error.errno in ABSENCE_ERRORS if isinstance(error, OSError) else False
                if isinstance(error, MemoryError) or (is_read_error(error) and not is_absent):
                    raise
                if is_absent and file.partition("!")[0] in self.index:
                    raise
                return "no such file" if is_absent else describe_error(error)

    def _iter_candidates(self) -> Iterator[Case | Rejection]:
        return (c for c in self._iter_cases() if isinstance(c, Rejection) or len(c.images) >= MIN_IMAGES)

    def _iter_cases(self) -> Iterator[Case | Rejection]:
        with translate_read_errors(self.root):
            yield from self.read_cases(self.root)

    def _select_cases(self) -> Iterator[Case]:
        selected_ids = None
        if self.limit is not None:
            ids = {c.id for c in self._iter_candidates() if isinstance(c, Case)}
            selected_ids = set(sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())[: self.limit])
        for case in self._iter_cases():
            if isinstance(case, Rejection):
                self.rejected.append(case)
            elif len(case.images) < MIN_IMAGES:
                self.single_image_count += 1
            elif selected_ids is None or case.id in selected_ids:
                yield case

    def _check_file(self, file: str) -> None:
        path = self.root / file
        if file in self._checked_files or not path.is_file():  # what loads it says that it is absent
            return
        with translate_read_errors(path):
            sha256 = files.hash_file(path)
        if sha256 != self.index.get(file):
            raise UserError(f"{path} is not as the set's index has it: index the folder again")
        self._checked_files.add(file)

    def _add_case(self, case: Case, results: list[RenderedImage | str]) -> Iterator[dict[str, Any]]:
        item = f"{case.file} {case.item}"
        rendered_images = [r for r in results if isinstance(r, RenderedImage)]
        patient = f"{self.name}/{case.patient}"
        row = question_row(
            split="benchmark",
            ability=self.name,
            set=self.name,
            task=f"{self.name}_{make_slug(case.task)}",
            text=strip_placeholders(case.question),
            options=case.options,
            answer=case.options[case.gold],
            answer_index=case.gold,
            image_ids=[r.image_id for r in rendered_images],
            patient_ids={patient, *(self._patients.get(r.image_id, patient) for r in rendered_images)},
            source=self.name,
            generator=self._generator,
        )
        faults = [f"{file}: {r}" for (file, _), r in zip(case.images, results, strict=True) if isinstance(r, str)]
        faults = faults or check_row(row, sets={"benchmark": (self.name,)})
        first = self._first_items.setdefault(row["qa_id"], item)
        if faults or first != item:
            duplicate_reason = f"same question, options, answer and images as {first}"
            self.rejected.append(Rejection(item, "; ".join(faults) or duplicate_reason, is_broken=bool(faults)))
            return
        self.rows.append(row)
        for (file, _), result in zip(case.images, rendered_images, strict=True):
            if result.image_id in self._patients:
                continue
            self._patients[result.image_id] = patient
            yield {
                "image_id": result.image_id,
                "source": self.name,
                "patient_id": patient,
                "study_id": patient,
                "day": None,
                "view": "",
                "laterality": "",
                "modality": case.modality,
                "width": result.width,
                "height": result.height,
                "bytes": result.png,
                "thumbnail": result.thumbnail,
                "release_path": "",
                "origin_file": file,
                "origin_sha256": result.sha256,
            }

    def rejection_rows(self) -> list[dict[str, str]]:
        """Rows of the rejected table, sorted."""
        return [
            {"stage": STAGE, "item": r.item, "reason": r.reason} for r in sorted(self.rejected, key=lambda r: (r.item, r.reason))
        ]

    def check_rejected_share(self, allowed: float) -> None:
        """Stop where no question is left, or more than the share `allowed` of them is broken. Raises UserError."""
        broken = [r for r in self.rejected if r.is_broken]
        total = len(self.rows) + len(broken)
        if not self.rows or len(broken) > allowed * total:
            raise UserError(
                f"{self.root}: {len(broken)} of {total} questions of {self.name} about several images can't be used, more than"
                f" the share {allowed:g} that max_rejected allows"
                + summarize_rejections([{"item": r.item, "reason": r.reason} for r in broken])
            )

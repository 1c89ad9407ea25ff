"""The ways in which a model is asked a benchmark question: as it is, and the controls that show what an answer rests on.

plain           as the benchmark has it
rotated         closed questions, once for each further place of the options: rotation k shows option (i + k) mod n at place i
blind           without its images
other_patient   the text as it is, the images of another question of the set: as many, and of none of its patients
reordered       the text as it is, the images moved on by one place

A condition leaves out the questions that it can't change. What is asked depends on the questions alone, in no order.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from medmim.config.conditions import CONDITIONS, Condition
from medmim.questions.prompt import strip_placeholders


@dataclass(frozen=True)
class PresentedQuestion:
    """A question as it is put to a model."""

    qa_id: str
    rotation: int
    """Places by which the options were moved; 0 but for condition rotated."""
    question: str
    """One `<image>` per image in front."""
    options: tuple[str, ...]
    """As shown, in order of the letters; empty where open."""
    image_ids: tuple[str, ...]
    """As shown."""


def shown_index(option: int, rotation: int, count: int) -> int:
    """Where an option of the benchmark stands among `count` that were moved by `rotation`."""
    return (option - rotation) % count


class _ImageDonors:
    """Questions of one set and number of images on a ring, by the hash of their id; one is drawn by walking on from a place."""

    def __init__(self, questions: Iterable[Mapping[str, Any]]) -> None:
        self._rings: dict[tuple[Any, ...], list[tuple[bytes, Mapping[str, Any], set[str]]]] = {}
        for row in questions:
            entry = (_hash_text(row["qa_id"]), row, set(row["patient_ids"]))
            for kind in self._pool_keys(row):
                self._rings.setdefault(kind, []).append(entry)
        for ring in self._rings.values():
            ring.sort(key=lambda entry: entry[0])

    @staticmethod
    def _pool_keys(row: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        kind = (row["set"], len(row["image_ids"]))
        return [(*kind, row["task"]), kind]  # of the same task where there is one

    def find_images(self, question: Mapping[str, Any]) -> Sequence[str] | None:
        """Images of another question that has as many and no patient in common."""
        own_patients = set(question["patient_ids"])
        for kind in self._pool_keys(question):
            ring = self._rings[kind]
            start = bisect_left(ring, _hash_text(f"other {question['qa_id']}"), key=lambda entry: entry[0])
            for _, row, patients in chain(islice(ring, start, None), islice(ring, start)):
                if not own_patients & patients:
                    image_ids: Sequence[str] = row["image_ids"]
                    return image_ids
        return None


def _hash_text(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def apply_condition(questions: Iterable[Mapping[str, Any]], condition: Condition) -> list[PresentedQuestion]:
    """What a condition asks, by the order of the questions and then by rotation.

    questions: rows with the columns COLUMNS of the qa table. Raises ValueError for an unknown condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"no condition {condition!r}; there are {', '.join(CONDITIONS)}")
    rows = list(questions)
    donors = _ImageDonors(rows if condition == "other_patient" else ())
    presented = []
    for row in rows:
        options, images, text = tuple(row["options"]), tuple(row["image_ids"]), row["question"]
        rotations: Iterable[int] = (0,)
        if condition == "rotated":
            rotations = range(1, len(options))
        elif condition == "blind":
            text, images = strip_placeholders(text), ()
        elif condition == "reordered":
            rotations = (0,) if len(set(images)) > 1 else ()
            images = (*images[1:], *images[:1])
        elif condition == "other_patient":
            drawn = donors.find_images(row) if images else None
            rotations = () if drawn is None else (0,)
            images = tuple(drawn or ())
        presented += [PresentedQuestion(row["qa_id"], k, text, (*options[k:], *options[:k]), images) for k in rotations]
    return presented


QUESTION_COLUMNS = ("qa_id", "set", "task", "question", "options", "image_ids", "patient_ids")
"""Columns of the qa table that `apply_condition` reads."""

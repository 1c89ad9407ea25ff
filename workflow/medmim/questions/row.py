"""One row of the qa table, built in one place so that every question is keyed and ordered alike."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from medmim.questions.prompt import IMAGE_PLACEHOLDER

Row = dict[str, Any]
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def hash_question(question: str, options: Sequence[str], answer: str, image_ids: Sequence[str]) -> str:
    """16 hex digits of the content: equal questions of equal images have equal ids, whoever made them."""
    content = _encode_json([question, list(options), answer, list(image_ids)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def question_row(
    *,
    split: str,
    ability: str,
    set: str,
    task: str,
    text: str,
    options: Sequence[str] = (),
    answer: str,
    answer_index: int | None = None,
    image_ids: Sequence[str] = (),
    patient_ids: Iterable[str] = (),
    source: str,
    generator: str,
    findings: Iterable[str] = (),
) -> Row:
    """A row of the qa table. `text` is the question without placeholders: one per image is put in front of it.

    Closed where there are options; `answer_index` then defaults to the place of `answer` among them, and stays null
    where it is not there (medmim.questions.validation.problems tells). Patients are made distinct and sorted, findings distinct.
    """
    options = list(options)
    if options and answer_index is None and answer in options:
        answer_index = options.index(answer)
    question = IMAGE_PLACEHOLDER * len(image_ids) + text
    return {
        "qa_id": hash_question(question, options, answer, image_ids),
        "split": split,
        "ability": ability,
        "set": set,
        "kind": "closed" if options else "open",
        "task": task,
        "question": question,
        "options": options,
        "answer": answer,
        "answer_index": answer_index,
        "image_ids": list(image_ids),
        "patient_ids": sorted({*patient_ids}),
        "source": source,
        "generator": generator,
        "findings": list(dict.fromkeys(findings)),
    }

"""From questions and images to the samples and pixels tables of one model."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from medmim.models.families.base import Layout
from medmim.questions.prompt import placeholders, prompt_text, target_text
from medmim.tables.images import ImageStore

Row = dict[str, Any]
AHEAD = 4
"""Row groups of an images table that wait for a process, or to be written, for each process."""


def sample(question: Mapping[str, Any], layout: Layout, store: ImageStore, *, system: str, max_length: int) -> Row:
    """One row of the samples table. Raises ValueError with the reason where the question can't be trained on."""
    images = list(question["image_ids"])
    if (shown := placeholders(question["question"])) != len(images):
        raise ValueError(f"{shown} placeholders for {len(images)} images")
    if absent := [i for i in images if i not in store]:
        raise ValueError(f"no image {absent[0]} in the images tables ({len(absent)} of {len(images)} absent)")
    options = list(question["options"])
    answer = target_text(options, question["answer_index"], question["answer"])
    ids, labels = layout.encode(prompt_text(question["question"], options), answer, system)
    length = layout.length(ids)
    if length > max_length:
        raise ValueError(f"{length} tokens with its images, more than max_length {max_length}")
    return {"qa_id": question["qa_id"], "input_ids": ids, "labels": labels, "image_ids": images, "length": length}


def samples(
    questions: Sequence[Mapping[str, Any]], layout: Layout, store: ImageStore, *, system: str, max_length: int
) -> tuple[list[Row], list[Row]]:
    """Rows of the samples table in the order of the questions, and rows of the rejected table."""
    kept, rejected = [], []
    for number, question in enumerate(questions, 1):
        try:
            kept.append(sample(question, layout, store, system=system, max_length=max_length))
        except ValueError as error:
            rejected.append({"stage": "shards", "item": f"qa row {number}, {question['qa_id']}", "reason": str(error)})
    return kept, rejected


def pixels(rows: Sequence[Row], layout: Layout, store: ImageStore, threads: int = 1) -> Iterator[Row]:
    """Rows of the pixels table: each image of the samples once, in the order in which the images tables hold them, so that
    each part of these is read once. `threads` processes do it; the result is the same.
    """
    groups = store.stored({i for row in rows for i in row["image_ids"]})
    if threads == 1:
        for group in groups:
            yield from _rendered(layout, store, group)
        return
    with ProcessPoolExecutor(threads, initializer=_begin, initargs=(layout, store)) as pool:
        waiting: deque[Future[list[Row]]] = deque()
        for group in groups:
            waiting.append(pool.submit(_render, group))
            if len(waiting) > AHEAD * threads:
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()


def _rendered(layout: Layout, store: ImageStore, images: Sequence[str]) -> list[Row]:
    made = []
    for image_id, image in zip(images, store.images(images), strict=True):
        array = layout.pixels(image)
        made.append({"image_id": image_id, "height": array.shape[0], "width": array.shape[1], "pixels": array.tobytes()})
    return made


def _begin(layout: Layout, store: ImageStore) -> None:
    """In each process: what `_render` works with."""
    global _work
    _work = layout, store


_work: tuple[Layout, ImageStore]


def _render(images: Sequence[str]) -> list[Row]:
    return _rendered(*_work, images)

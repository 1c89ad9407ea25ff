"""From questions and images to the samples and pixels tables of one model."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from medmim.common.errors import UserError
from medmim.models.families.base import Layout
from medmim.questions.prompt import count_placeholders, prompt_text, target_text
from medmim.tables.images import ImageStore

Row = dict[str, Any]
QUEUED_GROUPS_PER_PROCESS = 4
"""Row groups of an images table that wait for a process, or to be written, for each process."""


def build_sample(question: Mapping[str, Any], layout: Layout, store: ImageStore, *, system: str, max_length: int) -> Row:
    """One row of the samples table. Raises ValueError with the reason where the question can't be trained on."""
    images = list(question["image_ids"])
    if (placeholder_count := count_placeholders(question["question"])) != len(images):
        raise ValueError(f"{placeholder_count} placeholders for {len(images)} images")
    if missing_images := [i for i in images if i not in store]:
        raise ValueError(f"no image {missing_images[0]} in the images tables ({len(missing_images)} of {len(images)} absent)")
    options = list(question["options"])
    answer = target_text(options, question["answer_index"], question["answer"])
    ids, labels = layout.encode_sample(prompt_text(question["question"], options), answer, system)
    length = layout.count_tokens(ids)
    if length > max_length:
        raise ValueError(f"{length} tokens with its images, more than max_length {max_length}")
    return {"qa_id": question["qa_id"], "input_ids": ids, "labels": labels, "image_ids": images, "length": length}


def build_samples(
    questions: Sequence[Mapping[str, Any]], layout: Layout, store: ImageStore, *, system: str, max_length: int
) -> tuple[list[Row], list[Row]]:
    """Rows of the samples table in the order of the questions, and rows of the rejected table."""
    rows, rejected = [], []
    for number, question in enumerate(questions, 1):
        try:
            rows.append(build_sample(question, layout, store, system=system, max_length=max_length))
        except ValueError as error:
            rejected.append({"stage": "shards", "item": f"qa row {number}, {question['qa_id']}", "reason": str(error)})
    return rows, rejected


def render_pixels(rows: Sequence[Row], layout: Layout, store: ImageStore, threads: int = 1) -> Iterator[Row]:
    """Rows of the pixels table: each image of the samples once, in the order in which the images tables hold them, so that
    each part of these is read once. `threads` processes do it; the result is the same. Raises TableError for a damaged table.
    """
    groups = store.group_by_row_group({i for row in rows for i in row["image_ids"]})
    if threads == 1:
        for group in groups:
            yield from _render_images(layout, store, group)
        return
    try:
        with ProcessPoolExecutor(threads, initializer=_init_worker, initargs=(layout, store)) as pool:
            pending: deque[Future[list[Row]]] = deque()
            for group in groups:
                pending.append(pool.submit(_render_group, group))
                if len(pending) > QUEUED_GROUPS_PER_PROCESS * threads:
                    yield from pending.popleft().result()
            for future in pending:
                yield from future.result()
    except BrokenProcessPool:  # our own images kill no decoder
        raise UserError("a process that prepares images was killed, as for lack of memory: give the job more") from None


def _render_images(layout: Layout, store: ImageStore, images: Sequence[str]) -> list[Row]:
    rows = []
    for image_id, image in zip(images, store.read_images(images), strict=True):
        array = layout.preprocess_image(image)
        rows.append({"image_id": image_id, "height": array.shape[0], "width": array.shape[1], "pixels": array.tobytes()})
    return rows


def _init_worker(layout: Layout, store: ImageStore) -> None:
    """In each process: what `_render_group` works with."""
    global _worker_state
    _worker_state = layout, store


_worker_state: tuple[Layout, ImageStore]


def _render_group(images: Sequence[str]) -> list[Row]:
    return _render_images(*_worker_state, images)

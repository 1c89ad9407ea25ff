"""From questions and images to the samples and pixels tables of one model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medmim.images import ImageStore
from medmim.models.layout import Layout
from medmim.qa.prompt import placeholders, prompt_text, target_text

Row = dict[str, Any]
GROUP_BYTES = 1 << 20
"""Pixels in a row group: what is read for one image taken at random."""


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


def rows_per_group(layout: Layout) -> int:
    """Images in a row group of the pixels table."""
    return max(1, GROUP_BYTES // (3 * layout.image_size**2))


def pixels(rows: Sequence[Row], layout: Layout, store: ImageStore) -> Iterator[list[Row]]:
    """Rows of the pixels table, one row group at a time: each image of the samples once, in order of first use."""
    wanted = list(dict.fromkeys(i for row in rows for i in row["image_ids"]))
    for start in range(0, len(wanted), rows_per_group(layout)):
        part = []
        for image_id in wanted[start : start + rows_per_group(layout)]:
            array = layout.pixels(store.image(image_id))
            height, width, _ = array.shape
            part.append({"image_id": image_id, "height": height, "width": width, "pixels": array.tobytes()})
        yield part

"""What must be true of every question, generated or released."""

from collections.abc import Collection, Mapping
from typing import Any

from medmim.questions.prompt import IMAGE_PLACEHOLDER, count_placeholders
from medmim.questions.sets import SETS


def check_row(
    row: Mapping[str, Any], known_images: Collection[str] | None = None, sets: Mapping[str, Collection[str]] = SETS
) -> list[str]:
    """Why a row of the qa table can't be used, in words for a person; empty where it can.

    `known_images`: the image references there are; without it they are not looked up. `sets`: those of each split.
    An option text given twice passes in a released question: the release has them, and its audit counts them.
    """
    faults = []
    question, options, images = str(row["question"]), list(row["options"]), list(row["image_ids"])
    placeholder_count = count_placeholders(question)
    if placeholder_count != len(images):
        faults.append(f"{placeholder_count} <image> placeholders for {len(images)} images")
    if not question.startswith(IMAGE_PLACEHOLDER * placeholder_count):
        faults.append("an <image> placeholder is not in front of the text")
    if not question.replace(IMAGE_PLACEHOLDER, "").strip():
        faults.append("the question has no text")
    if not str(row["answer"]).strip():
        faults.append("the answer is empty")
    if row["kind"] not in ("closed", "open"):
        faults.append(f"kind {row['kind']!r} is neither closed nor open")
    elif row["kind"] == "closed":
        faults += _check_options(
            options, row["answer"], row["answer_index"], allow_repeats=str(row["generator"]).startswith("released/")
        )
    elif options or row["answer_index"] is not None:
        faults.append("an open question has options or an answer index")
    if row["set"] not in sets.get(row["split"], ()):
        faults.append(f"set {row['set']!r} does not belong to split {row['split']!r}")
    if known_images is not None:
        faults += [f"no image {i}" for i in dict.fromkeys(images) if i not in known_images]
    return faults


def _check_options(options: list[str], answer: str, index: int | None, *, allow_repeats: bool) -> list[str]:
    faults = []
    if len(options) < 2:
        faults.append(f"a closed question with {len(options)} options")
    repeated = sorted({o for o in options if options.count(o) > 1})
    if repeated and not allow_repeats:
        faults.append(f"option text given twice: {'; '.join(repeated)}")
    if any(not o.strip() for o in options):
        faults.append("an option is empty")
    if answer not in options:
        faults.append(f"the answer {answer!r} is not among the options")
    elif index is None or not 0 <= index < len(options) or options[index] != answer:
        faults.append(f"answer_index {index} does not point at the answer {answer!r}")
    return faults

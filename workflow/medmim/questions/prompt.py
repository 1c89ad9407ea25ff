"""The text of a question as a model reads it, and the text it should answer: the release's own form, for every family.

A question is one `<image>` per image, all in front, then words. Options follow on lines of their own, `A: text`;
the target of a closed question is its gold line, `B: text`, that of an open one the answer itself.
"""

import string
from collections.abc import Sequence

IMAGE_PLACEHOLDER = "<image>"
LETTERS = string.ascii_uppercase


def option_lines(options: Sequence[str]) -> list[str]:
    """`A: text`, `B: text`, ... Raises ValueError where letters run out."""
    if len(options) > len(LETTERS):
        raise ValueError(f"{len(options)} options, but only {len(LETTERS)} letters")
    return [f"{letter}: {option}" for letter, option in zip(LETTERS, options, strict=False)]


def prompt_text(question: str, options: Sequence[str]) -> str:
    """The user's turn: the question, then one line per option; `options` is empty for an open question."""
    return "\n".join([question, *option_lines(options)])


def target_text(options: Sequence[str], answer_index: int | None, answer: str) -> str:
    """The assistant's turn: the gold option's line, or `answer` where there are no options.

    Raises ValueError where `answer_index` is not an option, or its text is not `answer`.
    """
    if not len(options):
        return answer
    if answer_index is None or not 0 <= answer_index < len(options) or options[answer_index] != answer:
        raise ValueError(f"gold {answer!r} is not option {answer_index} of {list(options)}")
    return option_lines(options)[answer_index]


def count_placeholders(question: str) -> int:
    """How many images the question shows."""
    return question.count(IMAGE_PLACEHOLDER)


def strip_placeholders(question: str) -> str:
    """The question without its placeholders, for a reader who sees no image."""
    return question.replace(IMAGE_PLACEHOLDER, "").strip()

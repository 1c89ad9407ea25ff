"""The form of a question: its text, its row, and what is wrong with a bad one."""

import pytest

from medmim.questions.prompt import prompt_text, strip_placeholders, target_text
from medmim.questions.row import Row, question_row
from medmim.questions.validation import check_row

PAIR = ("i1", "i2")


def row(**changes: object) -> Row:
    """A sound closed question about two images, with some columns changed after it was made."""
    made = question_row(
        split="train", ability="comparison", set="comparison", task="t", text="Better or worse?", options=["better", "worse"],
        answer="worse", image_ids=PAIR, patient_ids=["s/2", "s/1", "s/2"], source="s", generator="g", findings=["f", "f"],
    )  # fmt: skip
    return made | changes


def test_texts_are_the_releases_form() -> None:
    assert prompt_text("<image><image>Better?", ["yes", "no"]) == "<image><image>Better?\nA: yes\nB: no"
    assert prompt_text("<image>What?", []) == "<image>What?"
    assert target_text(["yes", "no"], 1, "no") == "B: no"
    assert target_text([], None, "A lesion.") == "A lesion."
    assert strip_placeholders("<image><image>Better?") == "Better?"
    with pytest.raises(ValueError, match="gold 'no' is not option 0"):
        target_text(["yes", "no"], 0, "no")
    with pytest.raises(ValueError, match="27 options"):
        prompt_text("q", [str(i) for i in range(27)])


def test_row_is_keyed_on_content() -> None:
    made = row()
    assert made["question"] == "<image><image>Better or worse?"
    assert (made["kind"], made["answer_index"]) == ("closed", 1)
    assert made["patient_ids"] == ["s/1", "s/2"]
    assert made["findings"] == ["f"]
    keys = ("split", "ability", "set", "task", "answer", "source", "generator", "options", "patient_ids")
    same = {k: made[k] for k in keys}
    assert question_row(**same, text="Better or worse?", image_ids=PAIR)["qa_id"] == made["qa_id"]
    assert question_row(**same, text="Better or worse?", image_ids=PAIR[::-1])["qa_id"] != made["qa_id"]
    assert (
        question_row(**same | {"options": ["worse", "better"]}, text="Better or worse?", image_ids=PAIR)["qa_id"] != made["qa_id"]
    )


def test_sound_rows_have_no_problems() -> None:
    assert check_row(row(), {"i1", "i2"}) == []
    assert check_row(row(kind="open", options=[], answer_index=None)) == []
    twice = row(options=["worse", "better", "worse"], answer_index=0)
    assert check_row(twice | {"generator": "released/c1cdc25"}) == []  # the release has such options: its audit lists them


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": "equal"}, "the answer 'equal' is not among the options"),
        ({"answer_index": 0}, "answer_index 0 does not point at the answer"),
        ({"answer_index": None}, "answer_index None does not point"),
        ({"options": ["worse"]}, "a closed question with 1 options"),
        ({"options": ["worse", "better", "worse"], "answer_index": 0}, "option text given twice: worse"),
        ({"options": [" ", "worse"]}, "an option is empty"),
        ({"question": "<image>Better?"}, "1 <image> placeholders for 2 images"),
        ({"question": "Better<image><image>?"}, "not in front"),
        ({"question": "<image><image> "}, "the question has no text"),
        ({"answer": ""}, "the answer is empty"),
        ({"kind": "open"}, "an open question has options"),
        ({"kind": "other"}, "neither closed nor open"),
        ({"split": "benchmark", "set": "composed"}, "set 'composed' does not belong to split 'benchmark'"),
        ({"image_ids": ["i1", "i9"]}, "no image i9"),
    ],
)
def test_bad_rows_are_told_why(changes: Row, reason: str) -> None:
    assert any(reason in p for p in check_row(row(**changes), {"i1", "i2"}))

"""What each condition asks."""

import random

import pytest

from medmim.config.conditions import CONDITIONS
from medmim.questions.conditions import QUESTION_COLUMNS, apply_condition, shown_index
from medmim.questions.row import question_row


def question(images: str, patients: str, options: str = "xyz", task: str = "t", set_: str = "comparison") -> dict[str, object]:
    row = question_row(
        split="benchmark", ability=set_, set=set_, task=task, text=f"See {images}?", options=list(options), answer="x",
        image_ids=list(images), patient_ids=list(patients), source="s", generator="g",
    )  # fmt: skip
    return {name: row[name] for name in QUESTION_COLUMNS}


def test_plain_and_blind() -> None:
    row = question("ab", "p")
    (plain,), (blind,) = apply_condition([row], "plain"), apply_condition([row], "blind")
    assert plain.rotation == 0
    assert (plain.question, plain.options, plain.image_ids) == (
        "<image><image>See ab?",
        ("x", "y", "z"),
        ("a", "b"),
    )
    assert (blind.question, blind.options, blind.image_ids) == ("See ab?", ("x", "y", "z"), ())


def test_rotations_show_each_option_at_each_other_place_once() -> None:
    row = question("ab", "p", "wxyz")
    turned = apply_condition([row, question("a", "p", "")], "rotated")
    assert ["".join(a.options) for a in turned] == ["xyzw", "yzwx", "zwxy"]
    assert [a.rotation for a in turned] == [1, 2, 3]
    for a in turned:
        assert all(a.options[shown_index(i, a.rotation, 4)] == option for i, option in enumerate("wxyz"))


def test_reordered_moves_every_image_and_leaves_out_what_it_cannot_change() -> None:
    rows = [question("abc", "p"), question("a", "p"), question("aa", "p"), question("", "p")]
    assert [a.image_ids for a in apply_condition(rows, "reordered")] == [("b", "c", "a")]


def test_other_patient_is_of_the_same_shape_set_and_task_and_shares_nobody() -> None:
    rows = [
        question("ab", "pq"),
        question("cd", "q"),
        question("ef", "r"),
        question("g", "s"),
        question("ij", "u", set_="temporal"),
    ]
    shown = {a.qa_id: a.image_ids for a in apply_condition(rows, "other_patient")}
    assert shown == {rows[0]["qa_id"]: ("e", "f"), rows[1]["qa_id"]: ("e", "f"), rows[2]["qa_id"]: shown[rows[2]["qa_id"]]}
    assert shown[rows[2]["qa_id"]] in (("a", "b"), ("c", "d"))
    other, same = question("kl", "v", task="other"), question("mn", "w")
    assert {a.image_ids for a in apply_condition([rows[0], other, same], "other_patient") if a.qa_id == rows[0]["qa_id"]} == {
        ("m", "n")
    }


def test_nothing_depends_on_the_order_of_the_questions() -> None:
    rows = [question(f"{a}{b}", a, task=b) for a in "abcdef" for b in "gh"]
    for condition in CONDITIONS:
        once = apply_condition(rows, condition)
        random.Random(3).shuffle(rows)
        assert sorted(once, key=repr) == sorted(apply_condition(rows, condition), key=repr)


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="no condition 'upside down'; there are plain, rotated"):
        apply_condition([], "upside down")  # type: ignore[arg-type]

"""Scores of single items, and what is refused."""

from typing import Any

import pytest
from score_made import prediction, question

from medmim import tables
from medmim.score.answers import answers, likeliest

DRUSEN = ["cataract", "drusen", "Drusen", "glaucoma"]
QA = [
    question("q1", "reasoning", ["negative", "benign", "malignant"], "benign", ["p1"]),
    question("q2", "odir", DRUSEN, "Drusen", ["p2", "p3"]),
    question("q3", "rad", [], "the left lung", ["p4"]),
]
GOOD = [
    prediction("q1", "m", "plain", "B: benign", [-3, -1, -2]),
    prediction("q2", "m", "plain", "drusen", [-3, -1, -1, -2]),
    prediction("q3", "m", "plain", "Left lung."),
]


def score(*predictions: list[dict[str, Any]], qa: list[dict[str, Any]] = QA) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = answers(tables.build("qa", qa), [tables.build("predictions", p) for p in predictions])
    tables.build("answers", rows)
    return {(r["qa_id"], r["condition"], r["metric"]): r for r in rows}


def test_closed_and_open() -> None:
    found = score(GOOD)
    assert len(found) == 2 + 2 + 5
    row = found["q1", "plain", "accuracy"]
    assert row == {
        "qa_id": "q1", "model": "m", "condition": "plain", "set": "reasoning", "ability": "reasoning", "kind": "closed",
        "cluster": "p1", "metric": "accuracy", "value": 1, "status": "ok", "read": "B",
    }  # fmt: skip
    assert found["q2", "plain", "accuracy"]["cluster"] == "p2+p3"
    assert found["q3", "plain", "exact_match"]["value"] == 1
    assert found["q3", "plain", "exact_match"]["status"] == found["q3", "plain", "exact_match"]["read"] == ""


def test_duplicate_options_are_credited_by_text() -> None:
    for reply, logprobs in (("B", [-3, -1, -2, -4]), ("C", [-3, -2, -1, -4]), ("drusen", [-3, -1, -1, -4])):
        found = score([GOOD[0], prediction("q2", "m", "plain", reply, logprobs), GOOD[2]])
        assert found["q2", "plain", "accuracy"]["value"] == 1, reply
        assert found["q2", "plain", "loglikelihood_accuracy"]["value"] == 1, logprobs


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("", "unparsed"),
        ("A or B", "ambiguous"),
        ("I'm sorry, I can't help with that", "refused"),
        ("A benign-looking mass", "unparsed"),
    ],
)
def test_what_is_not_read_counts_as_wrong(reply: str, status: str) -> None:
    row = score([prediction("q1", "m", "plain", reply, [0, 1, 0]), *GOOD[1:]])["q1", "plain", "accuracy"]
    assert (row["value"], row["status"], row["read"]) == (0, status, "")


def test_likelihood_ties_are_wrong_and_need_no_reply() -> None:
    found = score([prediction("q1", "m", "plain", "", [-1, -1, -2]), *GOOD[1:]])
    assert (found["q1", "plain", "loglikelihood_accuracy"]["value"], found["q1", "plain", "loglikelihood_accuracy"]["read"]) == (
        0,
        "",
    )
    found = score([prediction("q1", "m", "plain", "", [-2, -1, -2]), *GOOD[1:]])
    assert (found["q1", "plain", "loglikelihood_accuracy"]["value"], found["q1", "plain", "loglikelihood_accuracy"]["read"]) == (
        1,
        "B",
    )
    assert likeliest(DRUSEN, [-2, -1, -1, -3]) == 1
    assert likeliest(DRUSEN, [-1, -1, -1, -3]) is None


def test_conditions_and_order_of_files_and_rows() -> None:
    blind = [prediction(p["qa_id"], "m", "blind", "A", p["option_logprobs"]) for p in GOOD]
    one, other = score(GOOD, blind), score(blind[::-1], GOOD[::-1], qa=QA[::-1])
    assert list(one.items()) == list(other.items())
    assert {condition for _, condition, _ in one} == {"plain", "blind"}


BAD: list[tuple[list[dict[str, Any]], str]] = [
    (GOOD[:2], "no prediction for question q3"),
    ([*GOOD, prediction("q9", "m", "plain", "A")], "q9, which the benchmark does not hold"),
    ([*GOOD, GOOD[1]], "two predictions for question q2"),
    ([*GOOD[:2], prediction("q3", "other", "plain", "x")], r"2 models \['m', 'other'\]"),
    ([], "0 models"),
    ([prediction("q1", "m", "plain", "A", [-1, -2]), *GOOD[1:]], "q1 .*expected 3 numbers"),
    ([prediction("q1", "m", "plain", "A", [-1, -2, float("nan")]), *GOOD[1:]], "q1 .*expected 3 numbers"),
]


@pytest.mark.parametrize(("predictions", "message"), BAD)
def test_predictions_that_do_not_fit(predictions: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(tables.TableError, match=message):
        score(predictions)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer_index": 3}, "q1: answer_index 3 is none of its 3 options"),
        ({"answer_index": None}, "q1: answer_index None"),
        ({"options": ["benign"] * 27, "answer_index": 0}, "q1: 27 options, more than there are letters"),
        ({"kind": "essay"}, "q1: kind 'essay'"),
        ({"patient_ids": []}, "q1 has no patient"),
        ({"qa_id": "q2"}, "q2 stands twice"),
    ],
)
def test_questions_that_do_not_fit(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(tables.TableError, match=message):
        score(GOOD, qa=[QA[0] | changed, *QA[1:]])


def test_no_questions() -> None:
    with pytest.raises(tables.TableError, match="holds no questions"):
        score([], qa=[])

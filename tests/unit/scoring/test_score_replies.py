"""Scores of single items, and what is refused."""

from typing import Any

import pytest
from score_made import make_prediction, make_question

from medmim.scoring.score_replies import score_predictions
from medmim.tables import table_io

DRUSEN = ["cataract", "drusen", "Drusen", "glaucoma"]
QA = [
    make_question("q1", "reasoning", ["negative", "benign", "malignant"], "benign", ["p1"]),
    make_question("q2", "odir", DRUSEN, "Drusen", ["p2", "p3"]),
    make_question("q3", "rad", [], "the left lung", ["p4"]),
]
GOOD = [
    make_prediction("q1", "m", "plain", "B: benign", [-3, -1, -2]),
    make_prediction("q2", "m", "plain", "drusen", [-3, -1, -1, -2]),
    make_prediction("q3", "m", "plain", "Left lung."),
]
# q1's options moved on by 1: benign, malignant, negative; by 2: malignant, negative, benign.
# q2's by 1: drusen, Drusen, glaucoma, cataract; by 2: Drusen, glaucoma, cataract, drusen; by 3: glaucoma, cataract, drusen,
# Drusen.
ROTATED = [
    make_prediction("q1", "m", "rotated", "A", [-1, -3, -2], rotation=1),
    make_prediction("q1", "m", "rotated", "A: malignant", [-3, -2, -1], rotation=2),
    make_prediction("q2", "m", "rotated", "B: Drusen", [-1, -2, -3, -4], rotation=1),
    make_prediction("q2", "m", "rotated", "D", [-2, -3, -1, -4], rotation=2),
    make_prediction("q2", "m", "rotated", "drusen", [-2, -3, -1, -1], rotation=3),
]


def table(*predictions: list[dict[str, Any]], qa: list[dict[str, Any]] = QA, **conditions: Any) -> list[dict[str, Any]]:
    made = score_predictions(
        table_io.build_table("qa", qa), [table_io.build_table("predictions", p) for p in predictions], **conditions
    )
    rows: list[dict[str, Any]] = made.to_pylist()
    assert table_io.build_table("answers", rows).equals(made)
    return rows


def score(*predictions: list[dict[str, Any]], qa: list[dict[str, Any]] = QA) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Rows by question, condition and metric; none of them rotated."""
    return {(r["qa_id"], r["condition"], r["metric"]): r for r in table(*predictions, qa=qa) if not r["rotation"]}


def test_closed_and_open() -> None:
    found = score(GOOD)
    assert len(found) == 2 + 2 + 5
    row = found["q1", "plain", "accuracy"]
    assert row == {
        "qa_id": "q1", "model": "m", "condition": "plain", "rotation": 0, "set": "reasoning", "ability": "reasoning",
        "kind": "closed", "cluster": "p1", "metric": "accuracy", "value": 1, "status": "ok", "read": "B", "option": 1,
    }  # fmt: skip
    assert found["q2", "plain", "accuracy"]["cluster"] == "p2+p3"
    assert found["q3", "plain", "exact_match"]["value"] == 1
    assert found["q3", "plain", "exact_match"]["status"] == found["q3", "plain", "exact_match"]["read"] == ""


def test_duplicate_options_are_credited_by_text() -> None:
    for reply, logprobs in (("B", [-3, -1, -2, -4]), ("C", [-3, -2, -1, -4]), ("drusen", [-3, -1, -1, -4])):
        found = score([GOOD[0], make_prediction("q2", "m", "plain", reply, logprobs), GOOD[2]])
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
    row = score([make_prediction("q1", "m", "plain", reply, [0, 1, 0]), *GOOD[1:]])["q1", "plain", "accuracy"]
    assert (row["value"], row["status"], row["read"], row["option"]) == (0, status, "", None)


def test_likelihood_ties_are_wrong_and_need_no_reply() -> None:
    found = score([make_prediction("q1", "m", "plain", "", [-1, -1, -2]), *GOOD[1:]])
    assert (found["q1", "plain", "loglikelihood_accuracy"]["value"], found["q1", "plain", "loglikelihood_accuracy"]["read"]) == (
        0,
        "",
    )
    found = score([make_prediction("q1", "m", "plain", "", [-2, -1, -2]), *GOOD[1:]])
    assert (found["q1", "plain", "loglikelihood_accuracy"]["value"], found["q1", "plain", "loglikelihood_accuracy"]["read"]) == (
        1,
        "B",
    )
    found = score([GOOD[0], make_prediction("q2", "m", "plain", "", [-1, -1, -1, -3]), GOOD[2]])  # of different texts
    row = found["q2", "plain", "loglikelihood_accuracy"]
    assert (row["value"], row["read"], row["option"]) == (0, "", None)


def test_rotated_replies_are_read_as_shown_and_told_as_the_benchmarks_own_options() -> None:
    rows = table(GOOD, ROTATED)
    read = {
        (r["qa_id"], r["rotation"], r["metric"]): (r["value"], r["read"], r["option"])
        for r in rows
        if r["condition"] == "rotated"
    }
    assert read == {
        ("q1", 0, "circular_accuracy"): (0, "", None),  # wrong under rotation 2
        ("q1", 1, "accuracy"): (1, "A", 1),
        ("q1", 1, "loglikelihood_accuracy"): (1, "A", 1),
        ("q1", 2, "accuracy"): (0, "A", 2),
        ("q1", 2, "loglikelihood_accuracy"): (1, "C", 1),
        ("q2", 0, "circular_accuracy"): (1, "", None),
        ("q2", 1, "accuracy"): (1, "B", 2),
        ("q2", 1, "loglikelihood_accuracy"): (1, "A", 1),  # the gold's text at another letter
        ("q2", 2, "accuracy"): (1, "D", 1),
        ("q2", 2, "loglikelihood_accuracy"): (0, "C", 0),
        ("q2", 3, "accuracy"): (1, "C", 1),  # of equal texts the first
        ("q2", 3, "loglikelihood_accuracy"): (1, "C", 1),
    }
    order = [(r["condition"], r["qa_id"], r["rotation"]) for r in rows]
    assert order == sorted(order)
    assert table(ROTATED[::-1], GOOD[::-1], qa=QA[::-1]) == rows
    wrong_at_first = [make_prediction("q2", "m", "plain", "A", [-3, -1, -1, -2]) if p["qa_id"] == "q2" else p for p in GOOD]
    circular = {r["qa_id"]: r["value"] for r in table(wrong_at_first, ROTATED) if r["metric"] == "circular_accuracy"}
    assert circular == {"q1": 0, "q2": 0}
    assert not [r for r in table(ROTATED) if r["metric"] == "circular_accuracy"]  # as asked is a part of it


def test_rotated_replies_agree_with_plain_ones_that_see_the_same() -> None:
    """A model that always names the gold by letter, or always says the same letter."""
    qa = [make_question(f"q{i}", "rad", ["cyst", "mass", "scar", "clip"][: 2 + i % 3], "mass", [f"p{i}"]) for i in range(6)]
    for told, mean in (("gold", 1.0), ("A", 0.0)):
        given = []
        for row in qa:
            for rotation in range(len(row["options"])):
                shown = [*row["options"][rotation:], *row["options"][:rotation]]
                reply = "ABCD"[shown.index("mass")] if told == "gold" else "A"
                given.append(make_prediction(row["qa_id"], "m", "rotated" if rotation else "plain", reply, rotation=rotation))
        rows = table(given, qa=qa)
        assert {r["value"] for r in rows if r["metric"] == "circular_accuracy"} == {mean}
        right = [r for r in rows if r["metric"] == "accuracy" and r["value"]]
        assert len(right) == (sum(len(r["options"]) for r in qa) if told == "gold" else len(qa))


def test_what_could_not_be_asked_is_wrong_and_said_so() -> None:
    failed = [
        p | {"failure": "the prompt is longer than the model's positions", "reply": "B", "option_logprobs": []} for p in GOOD
    ]
    found = score([GOOD[0], *failed[1:]])
    assert found["q1", "plain", "accuracy"]["value"] == 1
    for key in (("q2", "plain", "accuracy"), ("q2", "plain", "loglikelihood_accuracy"), ("q3", "plain", "token_f1")):
        assert (found[key]["value"], found[key]["status"], found[key]["read"]) == (0, "not_asked", "")
    everything = score(failed)
    assert {key[2] for key in everything} == {"accuracy", "exact_match", "token_recall", "token_f1", "bleu", "rouge_l"}


def test_models_without_likelihoods_have_no_such_metric() -> None:
    found = score([p | {"option_logprobs": []} for p in GOOD])
    assert {key[2] for key in found if key[0] != "q3"} == {"accuracy"}
    found = score([p | {"text_logprobs": p["option_logprobs"][::-1]} for p in GOOD])
    assert {key[2] for key in found if key[0] != "q3"} == {"accuracy", "loglikelihood_accuracy", "text_loglikelihood_accuracy"}
    row = found["q1", "plain", "text_loglikelihood_accuracy"]
    assert (row["value"], row["status"], row["read"], row["option"]) == (1, "", "B", 1)


def test_a_condition_that_is_wanted_must_be_there() -> None:
    with pytest.raises(table_io.TableError, match=r"m, blind: no prediction for question q1 \(3 missing\)"):
        table(GOOD, required_conditions=["plain", "blind"])
    # Each question has one image, so there is nothing to reorder.
    assert table(GOOD, required_conditions=["plain", "reordered"]) == table(GOOD)


def test_conditions_and_order_of_files_and_rows() -> None:
    blind = [make_prediction(p["qa_id"], "m", "blind", "A", p["option_logprobs"]) for p in GOOD]
    one, other = score(GOOD, blind), score(blind[::-1], GOOD[::-1], qa=QA[::-1])
    assert list(one.items()) == list(other.items())
    assert {condition for _, condition, _ in one} == {"plain", "blind"}


BAD: list[tuple[list[dict[str, Any]], str]] = [
    (GOOD[:2], "no prediction for question q3"),
    ([*GOOD, make_prediction("q9", "m", "plain", "A")], "q9, which the benchmark does not hold"),
    ([*GOOD, GOOD[1]], "two predictions for question q2"),
    ([*GOOD[:2], make_prediction("q3", "other", "plain", "x")], r"2 models \['m', 'other'\]"),
    ([], "0 models"),
    ([make_prediction("q1", "m", "plain", "A", [-1, -2]), *GOOD[1:]], "q1 .*expected 3 numbers"),
    ([make_prediction("q1", "m", "plain", "A", [-1, -2, float("nan")]), *GOOD[1:]], "q1 .*expected 3 numbers"),
    (
        [make_prediction("q1", "m", "plain", "A"), *GOOD[1:]],
        r"q1 \(m, plain\): option_logprobs \[\], expected 3 numbers, as others",
    ),
    ([GOOD[0] | {"text_logprobs": [-1, -2, -3]}, *GOOD[1:]], r"q2 \(m, plain\): text_logprobs \[\], expected 4 numbers"),
    (
        [*GOOD, make_prediction("q1", "m", "plain", "A", rotation=1)],
        "prediction for q1, rotation 1, which this condition does not ask",
    ),
    (
        [*GOOD, make_prediction("q3", "m", "rotated", "A", rotation=1)],
        "m, rotated: prediction for q3, rotation 1, which this condition",
    ),
    ([*GOOD, *ROTATED[1:]], r"m, rotated: no prediction for question q1, rotation 1 \(1 missing\); predict again"),
    ([*GOOD, *ROTATED, ROTATED[2]], "m, rotated: two predictions for question q2, rotation 1"),
    (
        [*GOOD, make_prediction("q1", "m", "sideways", "A")],
        "predictions of m, sideways: no condition 'sideways'; there are plain, rotated",
    ),
]


@pytest.mark.parametrize(("predictions", "message"), BAD)
def test_predictions_that_do_not_fit(predictions: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(table_io.TableError, match=message):
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
    with pytest.raises(table_io.TableError, match=message):
        score(GOOD, qa=[QA[0] | changed, *QA[1:]])


def test_no_questions() -> None:
    with pytest.raises(table_io.TableError, match="holds no questions"):
        score([], qa=[])

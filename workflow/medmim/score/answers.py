"""Scores of single items: one model's predictions in all its conditions against the benchmark's questions."""

import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from medmim.score import extract, openended
from medmim.score.items import questions
from medmim.tables import TableError


def likeliest(options: list[str], logprobs: list[float]) -> int | None:
    """Index of the likeliest option; None where options of different text tie."""
    best = max(logprobs)
    ties = [i for i, value in enumerate(logprobs) if value == best]
    return ties[0] if all(extract.same_option(options, ties[0], i) for i in ties) else None


def _closed(question: dict[str, Any], prediction: dict[str, Any]) -> dict[str, tuple[float, str, str]]:
    """Value, status and letter read, by metric."""
    options, gold = question["options"], question["answer_index"]
    reading = extract.read(prediction["reply"], options)
    right = reading.index is not None and extract.same_option(options, reading.index, gold)
    logprobs = prediction["option_logprobs"]
    if len(logprobs) != len(options) or any(x is None or math.isnan(x) for x in logprobs):
        raise TableError(
            f"prediction for {question['qa_id']} ({prediction['model']}, {prediction['condition']}): option_logprobs {logprobs}, "
            f"expected {len(options)} numbers"
        )
    best = likeliest(options, logprobs)
    return {
        "accuracy": (float(right), reading.status, reading.letter),
        "loglikelihood_accuracy": (
            float(best is not None and extract.same_option(options, best, gold)),
            "",
            "" if best is None else extract.LETTERS[best],
        ),
    }


def answers(qa: pa.Table, predictions: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """Rows of the answers table, by condition, question and metric, for one model.

    Raises TableError where the predictions are of several models, leave a question out, or answer one twice or an unknown one.
    """
    items = questions(qa)
    replies: dict[str, dict[str, dict[str, Any]]] = {}  # condition -> qa_id -> prediction
    models: set[str] = set()
    for table in predictions:
        for row in table.to_pylist():
            models.add(row["model"])
            given = replies.setdefault(row["condition"], {})
            if row["qa_id"] not in items:
                raise TableError(
                    f"{row['model']}, {row['condition']}: prediction for {row['qa_id']}, which the benchmark does not hold"
                )
            if row["qa_id"] in given:
                raise TableError(f"{row['model']}, {row['condition']}: two predictions for question {row['qa_id']}")
            given[row["qa_id"]] = row
    if len(models) != 1:
        raise TableError(f"predictions of {len(models)} models {sorted(models)}, expected of one")
    rows = []
    for condition, given in sorted(replies.items()):
        for name, question in items.items():
            if name not in given:
                missing = len(items) - len(given)
                raise TableError(
                    f"{models.pop()}, {condition}: no prediction for question {name} ({missing} missing); predict again"
                )
            prediction = given[name]
            scored = (
                _closed(question, prediction)
                if question["kind"] == "closed"
                else {m: (v, "", "") for m, v in openended.scores(prediction["reply"], question["answer"]).items()}
            )
            rows += [
                {
                    "qa_id": name,
                    "model": prediction["model"],
                    "condition": condition,
                    "set": question["set"],
                    "ability": question["ability"],
                    "kind": question["kind"],
                    "cluster": "+".join(sorted(question["patient_ids"])),
                    "metric": metric,
                    "value": value,
                    "status": status,
                    "read": letter,
                }
                for metric, (value, status, letter) in scored.items()
            ]
    return rows

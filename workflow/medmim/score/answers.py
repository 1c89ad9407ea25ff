"""Scores of single items: one model's predictions in all its conditions against the benchmark's questions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medmim import tables
from medmim.qa import conditions
from medmim.score import extract, openended
from medmim.score.items import METRICS, NOT_ASKED, questions
from medmim.tables import TableError

Row = tuple[int, int, str, float, str, str, int | None]  # question, rotation, metric, value, status, letter read, its option
LIKELIHOODS = {"option_logprobs": "loglikelihood_accuracy", "text_logprobs": "text_loglikelihood_accuracy"}


def likeliest(options: Sequence[str], logprobs: Sequence[float]) -> int | None:
    """Index of the likeliest option; None where options of different text tie."""
    best = max(logprobs)
    first = logprobs.index(best)
    if logprobs.count(best) > 1:
        ties = [i for i, value in enumerate(logprobs) if value == best]
        return first if all(extract.same_option(options, first, i) for i in ties) else None
    return first


class _Condition:
    """One model's predictions under one condition, of which each thing asked has one."""

    def __init__(self, model: str, condition: str, rows: Sequence[dict[str, Any]], qa: Sequence[dict[str, Any]]) -> None:
        self.where = f"{model}, {condition}"
        try:
            asked = [(one.qa_id, one.rotation) for one in conditions.asked(qa, condition)]  # type: ignore[arg-type]
        except ValueError as error:
            raise TableError(f"predictions of {model}: {error}") from None
        given = {(row["qa_id"], row["rotation"]): row for row in rows}
        if len(given) < len(rows):
            name, rotation = next(key for key, n in Counter((r["qa_id"], r["rotation"]) for r in rows).items() if n > 1)
            raise TableError(f"{self.where}: two predictions for question {name}{_rotated(rotation)}")
        if extra := given.keys() - set(asked):
            name, rotation = min(extra)
            known = name in {question["qa_id"] for question in qa}
            why = "which this condition does not ask" if known else "which the benchmark does not hold"
            raise TableError(f"{self.where}: prediction for {name}{_rotated(rotation)}, {why}")
        if missing := [key for key in asked if key not in given]:
            name, rotation = missing[0]
            raise TableError(
                f"{self.where}: no prediction for question {name}{_rotated(rotation)} ({len(missing)} missing); predict again"
            )
        self.rows = [given[key] for key in asked]

    def likelihoods(self, items: dict[str, dict[str, Any]]) -> dict[str, str]:
        """Columns that hold log-likelihoods, of every closed question that was asked or of none, with their metrics."""
        asked = [(row, items[row["qa_id"]]) for row in self.rows if not row["failure"] and items[row["qa_id"]]["options"]]
        found = {}
        for column, metric in LIKELIHOODS.items():
            if not any(row[column] for row, _ in asked):
                continue
            for row, item in asked:
                given, count = row[column], len(item["options"])
                if len(given) != count or any(x is None or x != x for x in given):
                    raise TableError(
                        f"prediction for {row['qa_id']}{_rotated(row['rotation'])} ({self.where}): {column} {given}, expected"
                        f" {count} numbers, as others of the condition have them"
                    )
            found[column] = metric
        return found


def _rotated(rotation: int) -> str:
    return f", rotation {rotation}" if rotation else ""


def _closed(number: int, question: dict[str, Any], row: dict[str, Any], likelihoods: dict[str, str]) -> list[Row]:
    """The rows of one asking. What is shown at place i is the question's own option (i + rotation) mod their number."""
    options, rotation = question["options"], row["rotation"]
    shown, count = [*options[rotation:], *options[:rotation]], len(options)
    gold = conditions.place(question["answer_index"], rotation, count)

    def scored(metric: str, index: int | None, status: str) -> Row:
        if index is None:
            return number, rotation, metric, 0.0, status, "", None
        right = index == gold or extract.same_option(shown, index, gold)
        return number, rotation, metric, float(right), status, extract.LETTERS[index], (index + rotation) % count

    if row["failure"]:
        return [scored(metric, None, NOT_ASKED) for metric in ("accuracy", *likelihoods.values())]
    reading = extract.read(row["reply"], shown)
    return [
        scored("accuracy", reading.index, reading.status),
        *(scored(metric, likeliest(shown, row[column]), "") for column, metric in likelihoods.items()),
    ]


def _open(number: int, question: dict[str, Any], row: dict[str, Any]) -> list[Row]:
    if row["failure"]:
        return [(number, 0, metric, 0.0, NOT_ASKED, "", None) for metric in METRICS["open"]]
    values = openended.scores(row["reply"], question["answer"])
    return [(number, 0, metric, value, "", "", None) for metric, value in values.items()]


def _circular(rows: Iterable[Row], plain: Iterable[Row]) -> list[Row]:
    """For each question that was rotated, whether it was right as asked and under every rotation."""
    right = {row[0]: row[3] for row in plain if row[2] == "accuracy"}
    circular: dict[int, float] = {}
    for row in rows:
        if row[2] == "accuracy":
            circular[row[0]] = min(row[3], circular.get(row[0], right[row[0]]))
    return [(number, 0, "circular_accuracy", value, "", "", None) for number, value in circular.items()]


def answers(qa: pa.Table, predictions: Iterable[pa.Table], wanted: Iterable[str] = ()) -> pa.Table:
    """The answers table of one model, by condition, question, rotation and metric; the same for any order of what is given.

    A question that the model could not be asked (predictions' `failure`) is wrong. Metrics of likelihoods are left out of a
    condition in which no closed question has any. circular_accuracy needs the conditions plain and rotated.
    wanted: conditions that must be there. Raises TableError where the predictions are of several models, where those of a
    condition are not one for each thing it asks (`medmim.qa.conditions`), or where some of its questions have likelihoods and
    others none.
    """
    items = questions(qa)
    place = {name: number for number, name in enumerate(items)}
    asked = qa.select(conditions.COLUMNS).to_pylist()
    given: dict[str, list[dict[str, Any]]] = {condition: [] for condition in wanted}
    models: set[str] = set()
    for table in predictions:
        for row in table.drop_columns("prompt_sha256").to_pylist():
            models.add(row["model"])
            given.setdefault(row["condition"], []).append(row)
    if len(models) != 1:
        raise TableError(f"predictions of {len(models)} models {sorted(models)}, expected of one")
    model = models.pop()
    found: dict[str, list[Row]] = {}
    for condition, rows in sorted(given.items()):  # plain before rotated
        one = _Condition(model, condition, rows, asked)
        likelihoods = one.likelihoods(items)
        found[condition] = []
        for row in one.rows:
            question, number = items[row["qa_id"]], place[row["qa_id"]]
            if question["kind"] == "closed":
                found[condition] += _closed(number, question, row, likelihoods)
            else:
                found[condition] += _open(number, question, row)
        if condition == "rotated" and "plain" in found:
            found[condition] += _circular(found[condition], found["plain"])
    return _table(items, model, found)


def _table(items: dict[str, dict[str, Any]], model: str, found: dict[str, list[Row]]) -> pa.Table:
    order = {metric: i for i, metric in enumerate(m for metrics in METRICS.values() for m in metrics)}
    names = ("condition", "number", "rotation", "metric", "value", "status", "read", "option")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for condition, rows in found.items():
        rows.sort(key=lambda row: (row[0], row[1], order[row[2]]))
        columns["condition"] += [condition] * len(rows)
        for name, values in zip(names[1:], zip(*rows, strict=True), strict=False):  # none of a condition that asks nothing
            columns[name] += values
    number = pa.array(np.array(columns.pop("number"), np.int64))
    arrays = {
        "model": pa.repeat(model, len(number)),
        "qa_id": pc.take(pa.array(list(items)), number),
        "cluster": pc.take(pa.array(["+".join(sorted(item["patient_ids"])) for item in items.values()]), number),
        **{name: pc.take(pa.array([item[name] for item in items.values()]), number) for name in ("set", "ability", "kind")},
        **columns,
    }
    schema = tables.schema("answers")
    return pa.table([pa.array(arrays[name], schema.field(name).type) for name in schema.names], schema=schema)

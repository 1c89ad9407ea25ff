"""Scores of single items: one model's predictions in all its conditions against the benchmark's questions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medmim.common.errors import TableError
from medmim.questions import conditions
from medmim.questions.prompt import LETTERS
from medmim.scoring import open_ended, reply_parser
from medmim.scoring.items import METRICS, NOT_ASKED, describe_metrics, index_questions
from medmim.tables import table_io

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LIKELIHOOD_METRICS = {"option_logprobs": "loglikelihood_accuracy", "text_logprobs": "text_loglikelihood_accuracy"}
ALL_METRICS = tuple(metric for metrics in METRICS.values() for metric in metrics)
STATUSES = ("", "ok", "ambiguous", "unparsed", "refused", NOT_ASKED)


class _Benchmark:
    """The questions in order, and what is asked of them."""

    def __init__(self, qa: pa.Table) -> None:
        self.items = index_questions(qa)
        self.names = list(self.items)
        self.questions = list(self.items.values())
        self.index_of = {name: number for number, name in enumerate(self.names)}
        self.is_closed = np.array([item["kind"] == "closed" for item in self.questions])
        self.option_counts = np.array([len(item["options"]) for item in self.questions])
        self._rows = qa.select(conditions.QUESTION_COLUMNS).to_pylist()

    def list_asked_keys(self, condition: str) -> list[tuple[str, int]]:
        """Question and rotation of each thing that a condition asks. ValueError for an unknown condition."""
        return [(item.qa_id, item.rotation) for item in conditions.apply_condition(self._rows, condition)]  # type: ignore[arg-type]


class _LogprobLists:
    """Lists of log-likelihoods, one for each prediction."""

    def __init__(self, column: pa.ListArray) -> None:
        offsets = column.offsets.to_numpy()
        self.lengths: Ints = np.diff(offsets).astype(np.int64)
        self._values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]].astype(np.float64)
        self._starts = offsets[:-1] - offsets[0]

    def get_row(self, row: int) -> list[float]:
        """The list of one prediction."""
        start = int(self._starts[row])
        values: list[float] = self._values[start : start + int(self.lengths[row])].tolist()
        return values

    def has_nan(self) -> NDArray[np.bool_]:
        """Whether a list holds what is no number."""
        flags = np.zeros(len(self.lengths), bool)
        flags[np.repeat(np.arange(len(self.lengths)), self.lengths)[np.isnan(self._values)]] = True
        return flags

    def find_likeliest(self, rows: Ints) -> tuple[Ints, list[tuple[int, list[int]]]]:
        """Place of the greatest value of each list, the first of equal ones; which lists have several, and where."""
        lengths, ends = self.lengths[rows], np.cumsum(self.lengths[rows])
        starts = ends - lengths
        positions = np.arange(ends[-1]) - np.repeat(starts, lengths)
        values = self._values[np.repeat(self._starts[rows], lengths) + positions]
        best = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, starts), lengths))
        row = np.repeat(np.arange(len(rows)), lengths)[best]
        _, first, counts = np.unique(row, return_index=True, return_counts=True)
        ties = [(int(i), positions[best[first[i] : first[i] + counts[i]]].tolist()) for i in np.flatnonzero(counts > 1)]
        return positions[best[first]], ties


@dataclass
class _ConditionPredictions:
    """One model's predictions under one condition: one of each thing that it asks, in order."""

    context: str
    question: Ints
    rotation: Ints
    reply: list[str]
    failed: NDArray[np.bool_]
    likelihoods: dict[str, _LogprobLists]
    """By column of the predictions: those that hold log-likelihoods."""

    @classmethod
    def from_table(cls, where: str, condition: str, rows: pa.Table, benchmark: _Benchmark) -> "_ConditionPredictions":
        """Raises TableError for an unknown condition, and where something asked has no prediction, or two, or one too many."""
        try:
            asked_keys = benchmark.list_asked_keys(condition)
        except ValueError as error:
            raise TableError(f"predictions of {where}: {error}") from None
        keys = list(zip(rows["qa_id"].to_pylist(), rows["rotation"].to_pylist(), strict=True))
        row_of_key = {key: row for row, key in enumerate(keys)}
        if len(row_of_key) < len(keys):
            name, rotation = next(key for key, count in Counter(keys).items() if count > 1)
            raise TableError(f"{where}: two predictions for question {name}{_format_rotation(rotation)}")
        if unexpected_keys := row_of_key.keys() - set(asked_keys):
            name, rotation = min(unexpected_keys)
            reason = "this condition does not ask" if name in benchmark.index_of else "the benchmark does not hold"
            raise TableError(f"{where}: prediction for {name}{_format_rotation(rotation)}, which {reason}")
        if missing_keys := [key for key in asked_keys if key not in row_of_key]:
            name, rotation = missing_keys[0]
            raise TableError(
                f"{where}: no prediction for question {name}{_format_rotation(rotation)} ({len(missing_keys)} missing); "
                "predict again"
            )
        rows = rows.take(np.array([row_of_key[key] for key in asked_keys], np.int64))
        predictions = cls(
            where,
            np.array([benchmark.index_of[name] for name, _ in asked_keys], np.int64),
            np.array([rotation for _, rotation in asked_keys], np.int64),
            rows["reply"].to_pylist(),
            np.array(rows["failure"].to_pylist(), object) != "",
            {},
        )
        for column in LIKELIHOOD_METRICS:
            predictions._add_logprobs(column, _LogprobLists(rows[column].combine_chunks()), benchmark)
        return predictions

    def _add_logprobs(self, column: str, lists: _LogprobLists, benchmark: _Benchmark) -> None:
        """Keep a column of log-likelihoods where the closed questions asked have them. TableError where only some do."""
        option_counts = benchmark.option_counts[self.question]
        expected = (option_counts > 0) & ~self.failed
        if not lists.lengths[expected].any():
            return
        wrong = np.flatnonzero(expected & ((lists.lengths != option_counts) | lists.has_nan()))
        if len(wrong):
            row = int(wrong[0])
            raise TableError(
                f"prediction for {benchmark.names[self.question[row]]}{_format_rotation(int(self.rotation[row]))} "
                f"({self.context}):"
                f" {column} {lists.get_row(row)}, expected {option_counts[row]} numbers, as others of the condition have them"
            )
        self.likelihoods[column] = lists


def _format_rotation(rotation: int) -> str:
    return f", rotation {rotation}" if rotation else ""


@dataclass
class _ScoreColumns:
    """Columns of answers, in pieces: questions, rotations, and for one metric values, statuses, and options (-1: none)."""

    pieces: list[tuple[Ints, Ints, Ints, Floats, Ints, Ints]] = field(default_factory=list)

    def add_metric(
        self, metric: str, question: Ints, rotation: Ints, value: Floats, status: Ints | None = None, option: Ints | None = None
    ) -> None:
        """Add what one metric gave."""
        no_status, no_option = np.zeros(len(question), np.int64), np.full(len(question), -1, np.int64)
        code = np.full(len(question), ALL_METRICS.index(metric), np.int64)
        self.pieces.append(
            (question, rotation, code, value, no_status if status is None else status, no_option if option is None else option)
        )

    def sorted_columns(self) -> list[NDArray[Any]]:
        """All of it by question, rotation and metric."""
        joined = [np.concatenate(parts) for parts in zip(*self.pieces, strict=True)]
        order = np.lexsort(joined[2::-1])
        return [column[order] for column in joined]


def _is_correct(question: Mapping[str, Any], option: int) -> bool:
    gold = question["answer_index"]
    return option == gold or reply_parser.is_same_option(question["options"], option, gold)


def _score_closed(predictions: _ConditionPredictions, benchmark: _Benchmark, scores: _ScoreColumns) -> None:
    """What is shown at place i is the question's own option (i + rotation) mod their number: all is told as the latter."""
    rows = np.flatnonzero(benchmark.is_closed[predictions.question])
    question, rotation, failed = predictions.question[rows], predictions.rotation[rows], predictions.failed[rows]
    value, option = np.zeros(len(rows)), np.full(len(rows), -1, np.int64)
    status = np.full(len(rows), STATUSES.index(NOT_ASKED), np.int64)
    for i, (row, number, item_rotation) in enumerate(zip(rows.tolist(), question.tolist(), rotation.tolist(), strict=True)):
        if not failed[i]:
            item = benchmark.questions[number]
            reading = reply_parser.parse_reply(predictions.reply[row], item["options"], item_rotation)
            status[i] = STATUSES.index(reading.status)
            if reading.index is not None:
                option[i], value[i] = reading.index, _is_correct(item, reading.index)
    scores.add_metric("accuracy", question, rotation, value, status, option)
    for column, lists in predictions.likelihoods.items():
        value, option = np.zeros(len(rows)), np.full(len(rows), -1, np.int64)
        status = np.where(failed, STATUSES.index(NOT_ASKED), 0)
        answered = np.flatnonzero(~failed)
        likeliest, ties = lists.find_likeliest(rows[answered])
        likeliest = (likeliest + rotation[answered]) % benchmark.option_counts[question[answered]]
        for i, places in ties:
            options = benchmark.questions[question[answered[i]]]["options"]
            tied = [(place + int(rotation[answered[i]])) % len(options) for place in places]
            if not all(reply_parser.is_same_option(options, tied[0], other) for other in tied):
                likeliest[i] = -1
        option[answered] = likeliest
        golds = np.array([item["answer_index"] if item["options"] else -1 for item in benchmark.questions])[question]
        value[option >= 0] = (option == golds)[option >= 0]
        for other in np.flatnonzero((option >= 0) & (option != golds)):  # of the gold's text, perhaps
            value[other] = _is_correct(benchmark.questions[question[other]], int(option[other]))
        scores.add_metric(LIKELIHOOD_METRICS[column], question, rotation, value, status, option)


def _score_open(predictions: _ConditionPredictions, benchmark: _Benchmark, scores: _ScoreColumns) -> None:
    rows = np.flatnonzero(~benchmark.is_closed[predictions.question])
    question, failed = predictions.question[rows], predictions.failed[rows]
    values = {metric: np.zeros(len(rows)) for metric in METRICS["open"]}
    for i in np.flatnonzero(~failed):
        for metric, value in open_ended.score_open_answer(
            predictions.reply[rows[i]], benchmark.questions[question[i]]["answer"]
        ).items():
            values[metric][i] = value
    for metric, column in values.items():
        scores.add_metric(metric, question, predictions.rotation[rows], column, np.where(failed, STATUSES.index(NOT_ASKED), 0))


def _score_circular(plain: _ScoreColumns, rotated: _ScoreColumns) -> None:
    """For each question that was rotated, whether it was right as asked and under every rotation."""
    (plain_questions, _, _, plain_values, *_), (question, _, _, rotated_values, *_) = (
        plain.pieces[0],
        rotated.pieces[0],
    )  # accuracy
    plain_by_question = dict(zip(plain_questions.tolist(), plain_values.tolist(), strict=True))
    circular: dict[int, float] = {}
    for number, value in zip(question.tolist(), rotated_values.tolist(), strict=True):
        circular[number] = min(value, circular.get(number, plain_by_question[number]))
    numbers = np.array(list(circular), np.int64)
    rotated.add_metric(
        "circular_accuracy", numbers, np.zeros(len(numbers), np.int64), np.array(list(circular.values()), np.float64)
    )


def score_predictions(qa: pa.Table, predictions: Iterable[pa.Table], required_conditions: Iterable[str] = ()) -> pa.Table:
    """The answers table of one model, by condition, question, rotation and metric; the same for any order of what is given.

    A question that the model could not be asked (predictions' `failure`) is wrong. Metrics of likelihoods are left out of a
    condition in which no closed question has any. circular_accuracy needs the conditions plain and rotated.
    required_conditions: those that must be there. Raises TableError where the predictions are of several models, where those
    of a condition are not one for each thing it asks (`medmim.questions.conditions`), or where some of its questions have
    likelihoods and others none.
    """
    benchmark = _Benchmark(qa)
    table = pa.concat_tables([*predictions, table_io.table_schema("predictions").empty_table()]).combine_chunks()
    models = table["model"].unique().to_pylist()
    if len(models) != 1:
        raise TableError(f"predictions of {len(models)} models {sorted(models)}, expected of one")
    row_conditions = np.array(table["condition"].to_pylist(), object)
    scores: dict[str, _ScoreColumns] = {}
    for condition in sorted({*row_conditions, *required_conditions}):  # plain before rotated
        rows = table.take(np.flatnonzero(row_conditions == condition))
        condition_predictions = _ConditionPredictions.from_table(f"{models[0]}, {condition}", condition, rows, benchmark)
        scores[condition] = _ScoreColumns()
        _score_closed(condition_predictions, benchmark, scores[condition])
        _score_open(condition_predictions, benchmark, scores[condition])
        if condition == "rotated" and "plain" in scores:
            _score_circular(scores["plain"], scores["rotated"])
    return _build_table(benchmark, models[0], scores)


def _build_table(benchmark: _Benchmark, model: str, scores: Mapping[str, _ScoreColumns]) -> pa.Table:
    schema = table_io.table_schema("answers")
    place = schema.get_field_index("metric")
    schema = schema.set(place, schema.field(place).with_metadata({"meaning": describe_metrics()}))
    letters = pa.array([*LETTERS, ""])  # the last for -1
    item_columns: dict[str, Sequence[str]] = {
        name: [item[name] for item in benchmark.questions] for name in ("qa_id", "set", "ability", "kind")
    }
    item_columns["cluster"] = ["+".join(sorted(item["patient_ids"])) for item in benchmark.questions]
    parts = []
    for condition, condition_scores in scores.items():
        question, rotation, metric, value, status, option = condition_scores.sorted_columns()
        shown_place = np.where(option < 0, -1, (option - rotation) % np.maximum(benchmark.option_counts[question], 1))
        columns = {
            **{name: pa.array(values).take(pa.array(question)) for name, values in item_columns.items()},
            "model": pa.repeat(model, len(question)),
            "condition": pa.repeat(condition, len(question)),
            "rotation": rotation,
            "metric": pa.array(ALL_METRICS).take(pa.array(metric)),
            "value": value,
            "status": pa.array(STATUSES).take(pa.array(status)),
            "read": letters.take(pa.array(shown_place % len(letters))),
            "option": pa.array(option, mask=option < 0),
        }
        parts.append(pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema))
    return pa.concat_tables(parts).combine_chunks()

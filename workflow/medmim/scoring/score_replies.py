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
from medmim.scoring.items import METRICS, NOT_ASKED, questions
from medmim.tables import table_io

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LIKELIHOODS = {"option_logprobs": "loglikelihood_accuracy", "text_logprobs": "text_loglikelihood_accuracy"}
ALL = tuple(metric for metrics in METRICS.values() for metric in metrics)
STATUSES = ("", "ok", "ambiguous", "unparsed", "refused", NOT_ASKED)


class _Benchmark:
    """The questions in order, and what is asked of them."""

    def __init__(self, qa: pa.Table) -> None:
        self.items = questions(qa)
        self.names = list(self.items)
        self.questions = list(self.items.values())
        self.place = {name: number for number, name in enumerate(self.names)}
        self.closed = np.array([item["kind"] == "closed" for item in self.questions])
        self.options = np.array([len(item["options"]) for item in self.questions])
        self._rows = qa.select(conditions.COLUMNS).to_pylist()

    def asked(self, condition: str) -> list[tuple[str, int]]:
        """Question and rotation of each thing that a condition asks. ValueError for an unknown condition."""
        return [(one.qa_id, one.rotation) for one in conditions.asked(self._rows, condition)]  # type: ignore[arg-type]


class _Lists:
    """Lists of log-likelihoods, one for each prediction."""

    def __init__(self, column: pa.ListArray) -> None:
        offsets = column.offsets.to_numpy()
        self.lengths: Ints = np.diff(offsets).astype(np.int64)
        self._values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]].astype(np.float64)
        self._starts = offsets[:-1] - offsets[0]

    def of(self, row: int) -> list[float]:
        """The list of one prediction."""
        start = int(self._starts[row])
        given: list[float] = self._values[start : start + int(self.lengths[row])].tolist()
        return given

    def broken(self) -> NDArray[np.bool_]:
        """Whether a list holds what is no number."""
        found = np.zeros(len(self.lengths), bool)
        found[np.repeat(np.arange(len(self.lengths)), self.lengths)[np.isnan(self._values)]] = True
        return found

    def likeliest(self, rows: Ints) -> tuple[Ints, list[tuple[int, list[int]]]]:
        """Place of the greatest value of each list, the first of equal ones; which lists have several, and where."""
        lengths, ends = self.lengths[rows], np.cumsum(self.lengths[rows])
        starts = ends - lengths
        within = np.arange(ends[-1]) - np.repeat(starts, lengths)
        values = self._values[np.repeat(self._starts[rows], lengths) + within]
        best = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, starts), lengths))
        row = np.repeat(np.arange(len(rows)), lengths)[best]
        _, first, times = np.unique(row, return_index=True, return_counts=True)
        ties = [(int(i), within[best[first[i] : first[i] + times[i]]].tolist()) for i in np.flatnonzero(times > 1)]
        return within[best[first]], ties


@dataclass
class _Condition:
    """One model's predictions under one condition: one of each thing that it asks, in order."""

    where: str
    question: Ints
    rotation: Ints
    reply: list[str]
    failed: NDArray[np.bool_]
    likelihoods: dict[str, _Lists]
    """By column of the predictions: those that hold log-likelihoods."""

    @classmethod
    def of(cls, where: str, condition: str, rows: pa.Table, benchmark: _Benchmark) -> "_Condition":
        """Raises TableError for an unknown condition, and where something asked has no prediction, or two, or one too many."""
        try:
            asked = benchmark.asked(condition)
        except ValueError as error:
            raise TableError(f"predictions of {where}: {error}") from None
        keys = list(zip(rows["qa_id"].to_pylist(), rows["rotation"].to_pylist(), strict=True))
        given = {key: row for row, key in enumerate(keys)}
        if len(given) < len(keys):
            name, rotation = next(key for key, times in Counter(keys).items() if times > 1)
            raise TableError(f"{where}: two predictions for question {name}{_rotated(rotation)}")
        if extra := given.keys() - set(asked):
            name, rotation = min(extra)
            why = "this condition does not ask" if name in benchmark.place else "the benchmark does not hold"
            raise TableError(f"{where}: prediction for {name}{_rotated(rotation)}, which {why}")
        if missing := [key for key in asked if key not in given]:
            name, rotation = missing[0]
            raise TableError(
                f"{where}: no prediction for question {name}{_rotated(rotation)} ({len(missing)} missing); predict again"
            )
        rows = rows.take(np.array([given[key] for key in asked], np.int64))
        found = cls(
            where,
            np.array([benchmark.place[name] for name, _ in asked], np.int64),
            np.array([rotation for _, rotation in asked], np.int64),
            rows["reply"].to_pylist(),
            np.array(rows["failure"].to_pylist(), object) != "",
            {},
        )
        for column in LIKELIHOODS:
            found._take(column, _Lists(rows[column].combine_chunks()), benchmark)
        return found

    def _take(self, column: str, lists: _Lists, benchmark: _Benchmark) -> None:
        """Keep a column of log-likelihoods where the closed questions asked have them. TableError where only some do."""
        wanted = benchmark.options[self.question]
        ours = (wanted > 0) & ~self.failed
        if not lists.lengths[ours].any():
            return
        wrong = np.flatnonzero(ours & ((lists.lengths != wanted) | lists.broken()))
        if len(wrong):
            row = int(wrong[0])
            raise TableError(
                f"prediction for {benchmark.names[self.question[row]]}{_rotated(int(self.rotation[row]))} ({self.where}):"
                f" {column} {lists.of(row)}, expected {wanted[row]} numbers, as others of the condition have them"
            )
        self.likelihoods[column] = lists


def _rotated(rotation: int) -> str:
    return f", rotation {rotation}" if rotation else ""


@dataclass
class _Scored:
    """Columns of answers, in pieces: questions, rotations, and for one metric values, statuses, and options (-1: none)."""

    pieces: list[tuple[Ints, Ints, Ints, Floats, Ints, Ints]] = field(default_factory=list)

    def add(
        self, metric: str, question: Ints, rotation: Ints, value: Floats, status: Ints | None = None, option: Ints | None = None
    ) -> None:
        """Add what one metric gave."""
        nothing, none = np.zeros(len(question), np.int64), np.full(len(question), -1, np.int64)
        code = np.full(len(question), ALL.index(metric), np.int64)
        self.pieces.append(
            (question, rotation, code, value, nothing if status is None else status, none if option is None else option)
        )

    def columns(self) -> list[NDArray[Any]]:
        """All of it by question, rotation and metric."""
        whole = [np.concatenate(parts) for parts in zip(*self.pieces, strict=True)]
        order = np.lexsort(whole[2::-1])
        return [column[order] for column in whole]


def _right(question: Mapping[str, Any], option: int) -> bool:
    gold = question["answer_index"]
    return option == gold or reply_parser.same_option(question["options"], option, gold)


def _closed(asked: _Condition, benchmark: _Benchmark, found: _Scored) -> None:
    """What is shown at place i is the question's own option (i + rotation) mod their number: all is told as the latter."""
    rows = np.flatnonzero(benchmark.closed[asked.question])
    question, rotation, failed = asked.question[rows], asked.rotation[rows], asked.failed[rows]
    value, option = np.zeros(len(rows)), np.full(len(rows), -1, np.int64)
    status = np.full(len(rows), STATUSES.index(NOT_ASKED), np.int64)
    for i, (row, number, turned) in enumerate(zip(rows.tolist(), question.tolist(), rotation.tolist(), strict=True)):
        if not failed[i]:
            item = benchmark.questions[number]
            reading = reply_parser.read(asked.reply[row], item["options"], turned)
            status[i] = STATUSES.index(reading.status)
            if reading.index is not None:
                option[i], value[i] = reading.index, _right(item, reading.index)
    found.add("accuracy", question, rotation, value, status, option)
    for column, lists in asked.likelihoods.items():
        value, option = np.zeros(len(rows)), np.full(len(rows), -1, np.int64)
        status = np.where(failed, STATUSES.index(NOT_ASKED), 0)
        ran = np.flatnonzero(~failed)
        likely, ties = lists.likeliest(rows[ran])
        likely = (likely + rotation[ran]) % benchmark.options[question[ran]]
        for i, places in ties:
            options = benchmark.questions[question[ran[i]]]["options"]
            tied = [(place + int(rotation[ran[i]])) % len(options) for place in places]
            if not all(reply_parser.same_option(options, tied[0], other) for other in tied):
                likely[i] = -1
        option[ran] = likely
        golds = np.array([item["answer_index"] if item["options"] else -1 for item in benchmark.questions])[question]
        value[option >= 0] = (option == golds)[option >= 0]
        for other in np.flatnonzero((option >= 0) & (option != golds)):  # of the gold's text, perhaps
            value[other] = _right(benchmark.questions[question[other]], int(option[other]))
        found.add(LIKELIHOODS[column], question, rotation, value, status, option)


def _open(asked: _Condition, benchmark: _Benchmark, found: _Scored) -> None:
    rows = np.flatnonzero(~benchmark.closed[asked.question])
    question, failed = asked.question[rows], asked.failed[rows]
    values = {metric: np.zeros(len(rows)) for metric in METRICS["open"]}
    for i in np.flatnonzero(~failed):
        for metric, value in open_ended.scores(asked.reply[rows[i]], benchmark.questions[question[i]]["answer"]).items():
            values[metric][i] = value
    for metric, column in values.items():
        found.add(metric, question, asked.rotation[rows], column, np.where(failed, STATUSES.index(NOT_ASKED), 0))


def _circular(plain: _Scored, rotated: _Scored) -> None:
    """For each question that was rotated, whether it was right as asked and under every rotation."""
    (asked, _, _, right, *_), (question, _, _, turned, *_) = plain.pieces[0], rotated.pieces[0]  # accuracy
    always = dict(zip(asked.tolist(), right.tolist(), strict=True))
    circular: dict[int, float] = {}
    for number, value in zip(question.tolist(), turned.tolist(), strict=True):
        circular[number] = min(value, circular.get(number, always[number]))
    numbers = np.array(list(circular), np.int64)
    rotated.add("circular_accuracy", numbers, np.zeros(len(numbers), np.int64), np.array(list(circular.values()), np.float64))


def answers(qa: pa.Table, predictions: Iterable[pa.Table], wanted: Iterable[str] = ()) -> pa.Table:
    """The answers table of one model, by condition, question, rotation and metric; the same for any order of what is given.

    A question that the model could not be asked (predictions' `failure`) is wrong. Metrics of likelihoods are left out of a
    condition in which no closed question has any. circular_accuracy needs the conditions plain and rotated.
    wanted: conditions that must be there. Raises TableError where the predictions are of several models, where those of a
    condition are not one for each thing it asks (`medmim.questions.conditions`), or where some of its questions have
    likelihoods and
    others none.
    """
    benchmark = _Benchmark(qa)
    given = pa.concat_tables([*predictions, table_io.schema("predictions").empty_table()]).combine_chunks()
    models = given["model"].unique().to_pylist()
    if len(models) != 1:
        raise TableError(f"predictions of {len(models)} models {sorted(models)}, expected of one")
    of_row = np.array(given["condition"].to_pylist(), object)
    found: dict[str, _Scored] = {}
    for condition in sorted({*of_row, *wanted}):  # plain before rotated
        rows = given.take(np.flatnonzero(of_row == condition))
        asked = _Condition.of(f"{models[0]}, {condition}", condition, rows, benchmark)
        found[condition] = _Scored()
        _closed(asked, benchmark, found[condition])
        _open(asked, benchmark, found[condition])
        if condition == "rotated" and "plain" in found:
            _circular(found["plain"], found["rotated"])
    return _table(benchmark, models[0], found)


def _table(benchmark: _Benchmark, model: str, found: Mapping[str, _Scored]) -> pa.Table:
    schema = table_io.schema("answers")
    letters = pa.array([*LETTERS, ""])  # the last for -1
    per_item: dict[str, Sequence[str]] = {
        name: [item[name] for item in benchmark.questions] for name in ("qa_id", "set", "ability", "kind")
    }
    per_item["cluster"] = ["+".join(sorted(item["patient_ids"])) for item in benchmark.questions]
    parts = []
    for condition, scored in found.items():
        question, rotation, metric, value, status, option = scored.columns()
        shown = np.where(option < 0, -1, (option - rotation) % np.maximum(benchmark.options[question], 1))
        columns = {
            **{name: pa.array(values).take(pa.array(question)) for name, values in per_item.items()},
            "model": pa.repeat(model, len(question)),
            "condition": pa.repeat(condition, len(question)),
            "rotation": rotation,
            "metric": pa.array(ALL).take(pa.array(metric)),
            "value": value,
            "status": pa.array(STATUSES).take(pa.array(status)),
            "read": letters.take(pa.array(shown % len(letters))),
            "option": pa.array(option, mask=option < 0),
        }
        parts.append(pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema))
    return pa.concat_tables(parts).combine_chunks()

"""The leaderboard: means over sets and their sums, intervals over patients, paired differences, baselines, pairs of models.

Baselines, on closed questions and without images or model:
chance    a letter drawn evenly: the mean over questions of the share of options that have the gold's text (1/n where no two
          options are alike). Exact, so without an interval.
majority  always the letter that is most often gold in the set (the first of equally frequent ones); wrong where a question
          has no such letter. In the sums held_in and held_out each set keeps its own letter. The letters are taken from the
          golds themselves: it is what a model could reach by knowing the set's letter skew and nothing else.

accuracy_minus_base is a tuned model's accuracy less its base's on the same questions, accuracy_minus_blind a model's accuracy
with images less that without, resample by resample, and so for every other metric and condition. A condition may ask fewer
questions than plain does: a difference is over those that both ask. recall_A is the share right of the questions whose gold is A.

Every score stands twice: on all questions and on the clean ones, which share no patient and no image with a training question,
nor show a copy of one of its images, exact or near.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medmim.common.errors import TableError
from medmim.config.conditions import BASELINES
from medmim.questions import conditions
from medmim.questions.copies import CopyIndex
from medmim.questions.prompt import LETTERS
from medmim.questions.sets import FURTHER, HELD_IN, HELD_OUT, SUMS
from medmim.scoring import bootstrap, reply_parser
from medmim.scoring.comparisons import compare_pairs
from medmim.scoring.items import METRICS, NOT_ASKED, index_questions

STATUS_RATES = {"closed": ("unparsed", "refused", "ambiguous", NOT_ASKED), "open": (NOT_ASKED,)}
SHARED_COLUMNS = ("patient_ids", "image_ids")
"""Columns of the qa table by which a benchmark question may be known from training."""
ColumnKey = tuple[str, str, str]  # model, condition, metric
Columns = dict[ColumnKey, bootstrap.Array]  # a value for each question of a kind, NaN where it was not asked


def flag_clean_questions(benchmark: pa.Table, train: pa.Table, copies: CopyIndex | None = None) -> NDArray[np.bool_]:
    """For each benchmark question whether it shares no patient, no image and no copy of an image with a training question."""
    flags = np.ones(len(benchmark), bool)
    for column in SHARED_COLUMNS:
        benchmark_ids = benchmark[column].combine_chunks()
        training_ids = train[column].combine_chunks().flatten()
        if copies and column == "image_ids":
            shown = set(training_ids.to_pylist())
            copied = [image for image, others in copies.of_benchmark.items() if not shown.isdisjoint(others)]
            training_ids = pa.array([*training_ids.to_pylist(), *copied], pa.string())
        is_known = pc.is_in(benchmark_ids.flatten(), value_set=training_ids)
        flags[pc.list_parent_indices(benchmark_ids).filter(is_known).to_numpy()] = False
    return flags


def _count_asked(rows: Sequence[Mapping[str, Any]], names: Sequence[str], condition: str) -> NDArray[np.intp]:
    """How often a condition asks each question of the qa table's rows."""
    try:
        counts = Counter(item.qa_id for item in conditions.apply_condition(rows, condition))  # type: ignore[arg-type]
    except ValueError as error:
        raise TableError(f"answers: {error}") from None
    return np.array([counts[name] for name in names], np.intp)


def _average_by_place(values: NDArray[Any], where: NDArray[np.intp], counts: NDArray[np.intp]) -> bootstrap.Array:
    """Mean of the values at each place, of which there are so many; NaN where there are none."""
    total = np.bincount(where, values, minlength=len(counts))
    return np.divide(total, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _find_places(table: pa.Table, ids: pa.Array) -> NDArray[np.intp]:
    """Place of each answer's question among the benchmark's. TableError where it is none of them."""
    place = pc.index_in(table["qa_id"], value_set=ids).combine_chunks()
    if place.null_count:
        stray = table.slice(place.is_null().index(True).as_py(), 1).to_pylist()[0]
        raise TableError(f"answers of {stray['model']}, {stray['condition']}: question {stray['qa_id']} is not in the benchmark")
    places: NDArray[np.intp] = place.to_numpy()
    return places


def _iterate_columns(table: pa.Table) -> Iterator[tuple[ColumnKey, NDArray[np.intp]]]:
    """Model, condition and metric of each score in a table, and its rows."""
    encoded = [table[c].combine_chunks().dictionary_encode() for c in ("model", "condition", "metric")]
    sizes = [len(e.dictionary) for e in encoded]
    codes = np.ravel_multi_index([e.indices.to_numpy() for e in encoded], sizes) if len(table) else np.empty(0, np.intp)
    for code in np.unique(codes):
        key = np.unravel_index(code, sizes)
        model, condition, metric = (e.dictionary[int(c)].as_py() for e, c in zip(encoded, key, strict=True))
        yield (model, condition, metric), np.flatnonzero(codes == code)


def _find_kind(metric: str, context: str) -> str:
    """Kind of questions that a metric scores. TableError for an unknown one."""
    for kind, metrics in METRICS.items():
        if metric in metrics:
            return kind
    raise TableError(f"{context}: no such metric; known: {', '.join(m for ms in METRICS.values() for m in ms)}")


def _check_counts(context: str, names: Sequence[str], counts: NDArray[np.intp], expected: NDArray[np.intp]) -> None:
    """TableError where a question has more or fewer answers than it was asked for."""
    if (counts != expected).any():
        wrong = int(np.argmax(counts != expected))
        raise TableError(
            f"{context}: {counts[wrong]} answers to question {names[wrong]}, expected {expected[wrong]}; score it again"
        )


def _collect_columns(qa: pa.Table, items: Mapping[str, Mapping[str, Any]], answers: Iterable[pa.Table]) -> dict[str, Columns]:
    """By kind: for each model, condition and metric the values of that kind's questions, in the order of `items`."""
    columns_by_kind: dict[str, Columns] = {kind: {} for kind in METRICS}
    names = list(items)
    ids, rows_of_qa = pa.array(names), qa.select(conditions.QUESTION_COLUMNS).to_pylist()
    kinds = np.array([item["kind"] for item in items.values()])
    asked_counts: dict[str, NDArray[np.intp]] = {}
    for table in answers:
        places, values, status = _find_places(table, ids), table["value"].to_numpy(), table["status"].combine_chunks()
        for (model, condition, metric), rows in _iterate_columns(table):
            context = f"answers of {model}, {condition}, {metric}"
            kind = _find_kind(metric, context)
            if condition not in asked_counts:
                asked_counts[condition] = _count_asked(rows_of_qa, names, condition)
            answer_counts = np.bincount(places[rows], minlength=len(names))
            expected_counts = np.where(kinds == kind, asked_counts[condition], 0)
            if metric == "circular_accuracy":
                expected_counts = np.minimum(expected_counts, 1)
            _check_counts(context, names, answer_counts, expected_counts)
            columns, is_of_kind = columns_by_kind[kind], kinds == kind
            if (model, condition, metric) in columns:
                raise TableError(f"{context}: given by two tables")
            columns[model, condition, metric] = _average_by_place(values[rows], places[rows], answer_counts)[is_of_kind]
            if metric == METRICS[kind][0]:
                row_statuses = status.take(pa.array(rows))
                for rate in STATUS_RATES[kind]:
                    has_status = pc.equal(row_statuses, rate).to_numpy(zero_copy_only=False)
                    rates = _average_by_place(has_status, places[rows], answer_counts)
                    columns[model, condition, f"{rate}_rate"] = rates[is_of_kind]
    _check_complete(columns_by_kind, items, asked_counts)
    return columns_by_kind


def _check_complete(
    columns_by_kind: Mapping[str, Columns], items: Mapping[str, Mapping[str, Any]], asked_counts: Mapping[str, NDArray[np.intp]]
) -> None:
    """TableError where a model was scored under a condition, but not on one kind of the questions that it asks."""
    model_conditions = sorted({key[:2] for columns in columns_by_kind.values() for key in columns})
    for kind, metrics in METRICS.items():
        is_of_kind = np.array([item["kind"] == kind for item in items.values()])
        for model, condition in model_conditions:
            if (model, condition, metrics[0]) not in columns_by_kind[kind] and (
                unanswered := is_of_kind & (asked_counts[condition] > 0)
            ).any():
                name = list(items)[int(np.argmax(unanswered))]
                raise TableError(f"answers of {model}, {condition}: none to question {name}; score it again")


def _score_baselines(items: Sequence[Mapping[str, Any]]) -> Columns:
    """Values of chance and majority for closed questions in order."""
    golds: dict[str, Counter[int]] = {}
    for item in items:
        golds.setdefault(item["set"], Counter())[item["answer_index"]] += 1
    majority_letters = {name: min(counts, key=lambda i: (-counts[i], i)) for name, counts in golds.items()}
    chance, majority = np.empty(len(items)), np.empty(len(items))
    for row, item in enumerate(items):
        options, gold, guess = item["options"], item["answer_index"], majority_letters[item["set"]]
        chance[row] = sum(reply_parser.is_same_option(options, gold, i) for i in range(len(options))) / len(options)
        majority[row] = guess < len(options) and reply_parser.is_same_option(options, gold, guess)
    return {("chance", "plain", "accuracy"): chance, ("majority", "plain", "accuracy"): majority}


def _derive_columns(columns: Columns, pairs: Mapping[str, str], golds: NDArray[np.intp] | None) -> Columns:
    """Paired differences per question, and recall by the letter of the gold (golds: None for open questions)."""
    derived: Columns = {}
    others = sorted({condition for _, condition, _ in columns} - {"plain"})
    for (model, condition, metric), values in columns.items():
        if metric.endswith("_rate"):
            continue
        base = columns.get((pairs.get(model, ""), condition, metric))
        if base is not None and (condition == "plain" or metric == "circular_accuracy"):
            derived[model, condition, f"{metric}_minus_base"] = values - base
        if condition != "plain":
            continue
        for other in others:
            if (subtracted := columns.get((model, other, metric))) is not None:
                derived[model, "plain", f"{metric}_minus_{other}"] = values - subtracted
        if metric == "accuracy" and golds is not None:
            for gold in np.unique(golds):
                derived[model, "plain", f"recall_{LETTERS[gold]}"] = np.where(golds == gold, values, np.nan)
    return derived


def _round_row(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers rounded below the bootstrap's noise, above floating point's, so that no order of summation shows; NaN is None."""
    return {k: (None if np.isnan(v) else round(float(v), 10) + 0.0) if isinstance(v, float) else v for k, v in row.items()}


@dataclass(frozen=True)
class LeaderboardRows:
    """Rows of the leaderboard table and of the comparisons table."""

    leaderboard: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]


def list_groups(sets: Iterable[str]) -> list[tuple[str, tuple[str, ...], str]]:
    """Title, sets and ability of each group that has a score of its own: the sets, then the sums, without further sets."""
    present = set(sets)
    held_in, held_out = (tuple(name for name in names if name in present) for names in (HELD_IN, HELD_OUT))
    ability = {name: name for name in held_in} | dict.fromkeys(held_out, "held_out")
    ability |= dict.fromkeys(sorted(present - ability.keys()), FURTHER)
    sums = [(title, members, title) for title, members in zip(SUMS, (held_in, held_out), strict=True) if members]
    return [*((name, (name,), set_ability) for name, set_ability in ability.items()), *sums]


def build_leaderboard(
    qa: pa.Table,
    train: pa.Table,
    answers: Iterable[pa.Table],
    *,
    seed: int,
    resamples: int,
    pairs: Mapping[str, str],
    copies: CopyIndex | None = None,
) -> LeaderboardRows:
    """Rows of the leaderboard and comparisons tables; the same for any order of questions, answers and files.

    train: training questions, of which SHARED_COLUMNS are read. copies: images of the benchmark that are copies of
    training's. pairs: tuned model -> its base. resamples: at least 1. Raises TableError where answers and questions do not
    match one to one, or a pair's model has no answers.
    """
    items = index_questions(qa)
    if reserved_names := {item["set"] for item in items.values()} & SUMS.keys():
        raise TableError(f"set name {reserved_names.pop()} is kept for the sum")
    columns = _collect_columns(qa, items, answers)
    models = sorted({model for kind_columns in columns.values() for model, _, _ in kind_columns})
    _check_models(models, pairs)
    clean_by_id = dict(zip(qa["qa_id"].to_pylist(), flag_clean_questions(qa, train, copies), strict=True))
    boards = LeaderboardRows([], [])
    for kind, of_kind in columns.items():
        kind_items = [item for item in items.values() if item["kind"] == kind]
        golds = np.array([item["answer_index"] for item in kind_items], np.intp) if kind == "closed" else None
        values = of_kind | _derive_columns(of_kind, pairs, golds)
        matrix = np.column_stack([values[key] for key in sorted(values)]) if values else np.empty((len(kind_items), 0))
        is_clean = np.array([clean_by_id[item["qa_id"]] for item in kind_items], bool)
        for title, members, ability in list_groups(item["set"] for item in kind_items):
            in_group = np.array([item["set"] in members for item in kind_items])
            parts = {"all": in_group, "clean": in_group & is_clean}
            compared = pairs if kind == "closed" else None
            seeds = [seed, *f"{title}/{kind}".encode()]
            for part, rows in _score_parts(kind_items, sorted(values), matrix, models, resamples, seeds, compared, parts).items():
                shared_fields = {"set": title, "part": part}
                more_fields = {**shared_fields, "ability": ability, "kind": kind}
                boards.leaderboard.extend({**row, **more_fields} for row in rows.leaderboard)
                boards.comparisons.extend({**row, **shared_fields} for row in rows.comparisons)
    return boards


def _score_parts(
    items: Sequence[Mapping[str, Any]],
    keys: Sequence[ColumnKey],
    matrix: bootstrap.Array,
    models: Sequence[str],
    resamples: int,
    seeds: Sequence[int],
    pairs: Mapping[str, str] | None,
    parts: Mapping[str, NDArray[np.bool_]],
) -> dict[str, LeaderboardRows]:
    """Rows of a group's parts that have questions; a part with the same questions as the first has the same rows."""
    first, *_ = parts.values()
    rows_by_part: dict[str, LeaderboardRows] = {}
    for part, chosen in parts.items():
        if not chosen.any():
            continue
        if rows_by_part and chosen.sum() == first.sum():
            rows_by_part[part] = next(iter(rows_by_part.values()))
            continue
        part_items = [items[int(i)] for i in np.flatnonzero(chosen)]
        rng = np.random.default_rng(list(seeds))
        rows_by_part[part] = _score_group(part_items, keys, matrix[chosen], models, resamples, rng, pairs)
    return rows_by_part


def _check_models(models: Sequence[str], pairs: Mapping[str, str]) -> None:
    """TableError where a pair's model has no answers, or a model bears a baseline's name."""
    for model in sorted({*pairs.keys(), *pairs.values()} - set(models)):
        raise TableError(f"pairs name {model}, which has no answers; models with answers: {models}")
    if reserved_names := set(models) & set(BASELINES):
        raise TableError(f"model name {reserved_names.pop()} is kept for the baseline")


def _list_compared_pairs(models: Sequence[str], pairs: Mapping[str, str]) -> list[tuple[str, str]]:
    """Every two models, a tuned one before its base."""
    return [(a, b) if pairs.get(a) == b or pairs.get(b) != a else (b, a) for i, a in enumerate(models) for b in models[i + 1 :]]


def _score_group(
    items: Sequence[Mapping[str, Any]],
    keys: Sequence[ColumnKey],
    matrix: bootstrap.Array,
    models: Sequence[str],
    resamples: int,
    rng: np.random.Generator,
    pairs: Mapping[str, str] | None,
) -> LeaderboardRows:
    """Rows of one group of questions, all on the same resamples. pairs: None for open questions, which are not compared."""
    values = {keys[int(i)]: matrix[:, i] for i in np.flatnonzero(~np.isnan(matrix).all(axis=0))}
    if pairs is not None:
        values |= _score_baselines(items)
    names = sorted(values)
    accuracies = {model: values[model, "plain", "accuracy"] for model in models if (model, "plain", "accuracy") in values}
    compared_pairs = [] if pairs is None else _list_compared_pairs(list(accuracies), pairs)
    design = bootstrap.Design.from_patients([item["patient_ids"] for item in items])
    stacked = np.column_stack([*(values[name] for name in names), *(accuracies[a] - accuracies[b] for a, b in compared_pairs)])
    resampled = bootstrap.resample_means(stacked, design, resamples, rng)
    independent = max(Counter(p for item in items for p in set(item["patient_ids"])).values()) == 1
    tests = compare_pairs(
        [(accuracies[a], accuracies[b]) for a, b in compared_pairs], resampled.p_values()[len(names) :], independent=independent
    )
    rows: list[dict[str, Any]] = [
        *({"model": model, "condition": condition, "metric": metric} for model, condition, metric in names),
        *(
            {"model": a, "other": b, "relation": "base" if pairs and pairs.get(a) == b else "", **test}
            for (a, b), test in zip(compared_pairs, tests, strict=True)
        ),
    ]
    exact = [model == "chance" for model, _, _ in names] + [False] * len(compared_pairs)
    low, high = (np.where(exact, np.nan, end) for end in resampled.confidence_interval())
    for i, row in enumerate(rows):
        row |= {"value": float(resampled.mean[i]), "ci_low": float(low[i]), "ci_high": float(high[i])}
        row |= {"n": int(resampled.n[i]), "n_patients": int(resampled.patients[i])}
    rows = [_round_row(row) for row in rows]
    return LeaderboardRows(rows[: len(names)], rows[len(names) :])

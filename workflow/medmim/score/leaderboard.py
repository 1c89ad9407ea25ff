"""The leaderboard: means over sets and their sums, intervals over patients, paired differences, baselines.

Baselines, on closed questions and without images or model:
chance    a letter drawn evenly: the mean over questions of the share of options that have the gold's text (1/n where no two
          options are alike). Exact, so without an interval.
majority  always the letter that is most often gold in the set (the first of equally frequent ones); wrong where a question
          has no such letter. In the sums held_in and held_out each set keeps its own letter. The letters are taken from the
          golds themselves: it is what a model could reach by knowing the set's letter skew and nothing else.

accuracy_minus_base is a tuned model's accuracy less its base's on the same questions, accuracy_minus_blind a model's accuracy
with images less that without; both are of condition plain, resample by resample, and so for every other metric.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from medmim.score import bootstrap, extract
from medmim.score.items import HELD_IN, HELD_OUT, METRICS, questions
from medmim.tables import TableError

BASELINES = ("chance", "majority")
RATES = ("unparsed", "refused", "ambiguous")
Column = tuple[str, str, str]  # model, condition, metric


def _columns(items: Mapping[str, Mapping[str, Any]], answers: pd.DataFrame) -> dict[str, dict[Column, bootstrap.Array]]:
    """By kind: for each model, condition and metric the values of that kind's questions, in the order of `items`."""
    found: dict[str, dict[Column, bootstrap.Array]] = {}
    for kind, metrics in METRICS.items():
        index = pd.Index([name for name, item in items.items() if item["kind"] == kind])
        found[kind] = {}
        part = answers[answers["kind"] == kind]
        for key, rows in part.groupby(["model", "condition", "metric"], sort=True):
            model, condition, metric = cast(Column, key)
            place = index.get_indexer(pd.Index(rows["qa_id"]))
            where = f"answers of {model}, {condition}, {metric}"
            if metric not in metrics:
                raise TableError(f"{where}: no metric of {kind} questions; known: {', '.join(metrics)}")
            if (place < 0).any():
                raise TableError(
                    f"{where}: question {rows['qa_id'].iloc[int(np.argmin(place))]} is no {kind} question of the benchmark"
                )
            times = np.bincount(place, minlength=len(index))
            if (times != 1).any():
                wrong = int(np.argmax(times != 1))
                raise TableError(f"{where}: {times[wrong]} answers to question {index[wrong]}, expected 1; score it again")
            values = np.empty(len(index))
            values[place] = rows["value"]
            found[kind][model, condition, metric] = values
            if metric == "accuracy":
                for rate in RATES:
                    is_so = np.empty(len(index))
                    is_so[place] = rows["status"] == rate
                    found[kind][model, condition, f"{rate}_rate"] = is_so
        if len(index):
            for model, condition in sorted(set(zip(answers["model"], answers["condition"], strict=True))):
                if (model, condition, metrics[0]) not in found[kind]:
                    raise TableError(f"answers of {model}, {condition}: none to question {index[0]}; score it again")
    return found


def _baselines(items: Sequence[Mapping[str, Any]]) -> tuple[bootstrap.Array, bootstrap.Array]:
    """Values of chance and majority for closed questions in order."""
    golds: dict[str, Counter[int]] = {}
    for item in items:
        golds.setdefault(item["set"], Counter())[item["answer_index"]] += 1
    letter = {name: min(counts, key=lambda i: (-counts[i], i)) for name, counts in golds.items()}
    chance, majority = np.empty(len(items)), np.empty(len(items))
    for row, item in enumerate(items):
        options, gold, guess = item["options"], item["answer_index"], letter[item["set"]]
        chance[row] = sum(extract.same_option(options, gold, i) for i in range(len(options))) / len(options)
        majority[row] = guess < len(options) and extract.same_option(options, gold, guess)
    return chance, majority


def _with_differences(columns: dict[Column, bootstrap.Array], pairs: Mapping[str, str]) -> dict[Column, bootstrap.Array]:
    """Columns with the paired differences per question added: a mean of differences is the difference of the means."""
    found = dict(columns)
    for (model, condition, metric), values in columns.items():
        if condition != "plain" or metric.endswith("_rate"):
            continue
        if (base := columns.get((pairs.get(model, ""), "plain", metric))) is not None:
            found[model, "plain", f"{metric}_minus_base"] = values - base
        if (blind := columns.get((model, "blind", metric))) is not None:
            found[model, "plain", f"{metric}_minus_blind"] = values - blind
    return found


def _number(value: float) -> float:
    """Rounded below the bootstrap's noise and above floating point's, so that no order of summation shows."""
    return round(float(value), 10) + 0.0


def leaderboard(
    qa: pa.Table,
    answers: Iterable[pd.DataFrame],
    *,
    seed: int,
    resamples: int,
    pairs: Mapping[str, str],
    held_in: Sequence[str] = HELD_IN,
    held_out: Sequence[str] = HELD_OUT,
    further: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Rows of the leaderboard table; the same for any order of questions, answers and files.

    pairs: tuned model -> its base. held_in, held_out: names of the sets that make each sum; further: of those that are in none.
    Sets without questions are left out. resamples: at least 1. Raises TableError where answers and questions do not match one to
    one, a set is in no list, or a pair's model has no answers.
    """
    items = questions(qa)
    if stray := sorted({item["set"] for item in items.values()} - {*held_in, *held_out, *further}):
        lists = f"neither held_in {list(held_in)} nor held_out {list(held_out)} nor further {list(further)}"
        raise TableError(f"sets {stray} of the benchmark are {lists}")
    frame = pd.concat(answers, ignore_index=True)
    models = set(frame["model"])
    for model in sorted({*pairs.keys(), *pairs.values()} - models):
        raise TableError(f"pairs name {model}, which has no answers; models with answers: {sorted(models)}")
    if taken := models & set(BASELINES):
        raise TableError(f"model name {taken.pop()} is kept for the baseline")
    columns = _columns(items, frame)
    sums = {"held_in": held_in, "held_out": held_out}
    rows: list[dict[str, Any]] = []
    for kind, of_kind in columns.items():
        here = [item for item in items.values() if item["kind"] == kind]
        values = _with_differences(of_kind, pairs)
        if kind == "closed":
            chance, majority = _baselines(here)
            values |= {("chance", "plain", "accuracy"): chance, ("majority", "plain", "accuracy"): majority}
        names = sorted(values)
        matrix = np.column_stack([values[name] for name in names]) if names else np.empty((len(here), 0))
        for title, members, ability in [
            *((name, (name,), name) for name in held_in),
            *((name, (name,), "held_out") for name in held_out),
            *((name, (name,), "further") for name in further),
            *((name, sets, name) for name, sets in sums.items()),
        ]:
            chosen = [i for i, item in enumerate(here) if item["set"] in members]
            if not chosen:
                continue
            design = bootstrap.Design.of([here[i]["patient_ids"] for i in chosen])
            low = high = None
            if design.n_units > 1:  # one unit says nothing about others
                rng = np.random.default_rng([seed, *f"{title}/{kind}".encode()])
                low, high = bootstrap.interval(bootstrap.resampled_means(matrix[chosen], design, resamples, rng))
            rows += [
                {
                    "model": model,
                    "set": title,
                    "ability": ability,
                    "kind": kind,
                    "condition": condition,
                    "metric": metric,
                    "value": _number(mean),
                    "ci_low": None if low is None or model == "chance" else _number(low[column]),
                    "ci_high": None if high is None or model == "chance" else _number(high[column]),
                    "n": len(chosen),
                    "n_patients": design.n_patients,
                }
                for column, ((model, condition, metric), mean) in enumerate(zip(names, matrix[chosen].mean(axis=0), strict=True))
            ]
    return rows

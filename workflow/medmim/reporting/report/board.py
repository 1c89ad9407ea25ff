"""The leaderboard cell by cell, and the paper's own figures where the user has filled them in."""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from medmim.common.errors import TableError, UserError
from medmim.config.conditions import BASELINES
from medmim.config.part_names import find_nearest
from medmim.config.question_sets import QUESTION_SETS
from medmim.config.source_plugins import HELD_OUT_SETS
from medmim.questions.sets import FURTHER, HELD_IN, HELD_OUT, SUMS, TRAIN_ONLY
from medmim.tables.outside_tables import read_rows

_LABELS = {s.name: s.label for s in QUESTION_SETS} | {name: s.label for name, s in HELD_OUT_SETS.items()} | SUMS
SET_LABELS = {name: _LABELS[name] for name in (*HELD_IN, *TRAIN_ONLY, "held_in", *HELD_OUT, "held_out")}
"""Names of the sets for people, in the order of the tables; a set that is not named here comes before the held-out sum."""
FURTHER_LABEL = "Further held-out"
"""What the sets are called that are in no sum."""


def get_set_label(name: str, further: Mapping[str, str]) -> str:
    """Return the name of a set for people; `further` has those of the run's further held-out sets."""
    return SET_LABELS.get(name) or further.get(name) or (FURTHER_LABEL if name == FURTHER else name)


def sort_sets(sets: Iterable[str]) -> list[str]:
    """Distinct sets in the order of the tables."""
    set_order = list(SET_LABELS)
    return sorted(set(sets), key=lambda s: (set_order.index(s) if s in set_order else set_order.index("held_out") - 0.5, s))


@dataclass(frozen=True)
class Cell:
    """One value of the leaderboard with its interval: shares of 1, items, bootstrap clusters."""

    value: float
    low: float | None
    high: float | None
    n: int
    patients: int

    @property
    def direction(self) -> int:
        """Of a difference: 1 where the whole interval is above zero, -1 below, 0 where neither can be said."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True)
class ScoredModel:
    """A scored model: its name, what it was tuned from, and whether something was tuned from it."""

    name: str
    base: str | None
    role: str
    """base, tuned, other, or baseline."""


class Leaderboard:
    """Lookup of leaderboard cells, and names of its sets. Raises TableError where two rows stand for one cell."""

    def __init__(self, frame: pd.DataFrame, further_labels: Mapping[str, str] | None = None) -> None:
        self._further_labels = further_labels or {}
        self.rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
        self._cells: dict[tuple[str, str, str, str, str, str], Cell] = {}
        self._sum_by_set: dict[str, str] = {}
        for row in self.rows:
            key = (row["model"], row["set"], row["metric"], row["kind"], row["condition"], row["part"])
            if key in self._cells:
                raise TableError(f"leaderboard: two rows for {', '.join(key)}")
            low, high = (None if math.isnan(row[c]) else float(row[c]) for c in ("ci_low", "ci_high"))
            self._cells[key] = Cell(float(row["value"]), low, high, int(row["n"]), int(row["n_patients"]))
            self._sum_by_set[row["set"]] = row["ability"] if row["ability"] in ("held_out", FURTHER) else "held_in"

    def get(
        self, model: str, set_: str, metric: str, kind: str = "closed", condition: str = "plain", part: str = "all"
    ) -> Cell | None:
        """The cell, or None where the leaderboard has no such row."""
        return self._cells.get((model, set_, metric, kind, condition, part))

    def get_set_label(self, name: str) -> str:
        """Return the name of a set for people."""
        return get_set_label(name, self._further_labels)

    def _distinct_values(self, position: int, **criteria: str) -> list[str]:
        names = ("model", "set", "metric", "kind", "condition", "part")
        filters = [(names.index(k), v) for k, v in criteria.items()]
        return list(dict.fromkeys(key[position] for key in self._cells if all(key[i] == v for i, v in filters)))

    def sets_by_sum(self, metric: str, kind: str = "closed") -> list[tuple[str, list[str]]]:
        """(sum, the sum followed by its sets) for held-in, then held-out, then those in no sum, where the metric has values."""
        sets = sort_sets(self._distinct_values(1, metric=metric, kind=kind))
        members_by_sum = {s: [t for t in sets if self._sum_by_set[t] == s] for s in (*SUMS, FURTHER)}
        members_by_sum = {s: sorted(members, key=lambda t: t != s) for s, members in members_by_sum.items()}
        return [(s, members) for s, members in members_by_sum.items() if members]

    def list_metrics(self, kind: str) -> list[str]:
        """Metrics of one kind, in order of appearance."""
        return self._distinct_values(2, kind=kind)

    def list_conditions(self, kind: str = "closed") -> list[str]:
        """Conditions of one kind, plain first."""
        return sorted(self._distinct_values(4, kind=kind), key=lambda c: (c != "plain", c))

    def list_models(self, config: Mapping[str, Mapping[str, Any]]) -> list[ScoredModel]:
        """Every model of the board: each base followed by what was tuned from it, others, then the baselines."""
        present = self._distinct_values(0)
        bases = {m: config[m].get("base") for m in present if m in config}
        scored_models: list[ScoredModel] = []
        for name in [*(m for m in config if m in present), *(m for m in present if m not in config and m not in BASELINES)]:
            tuned = [ScoredModel(m, name, "tuned") for m, base in bases.items() if base == name]
            if tuned:
                scored_models += [ScoredModel(name, None, "base"), *tuned]
            elif bases.get(name) not in present:
                scored_models.append(ScoredModel(name, None, "other"))
        return scored_models + [ScoredModel(b, None, "baseline") for b in BASELINES if b in present]


def read_paper_scores(path: Path, models: Collection[str]) -> dict[tuple[str, str], float]:
    """Accuracies that the paper prints, from the user's table with the columns model, set, accuracy (percent).

    Returns (model, set) -> share of 1. An empty accuracy is left out; a model that is none of `models`, those of the run, is one
    of the paper's alone. Raises UserError with file, row and column, also for a name that is almost one of theirs.
    """
    paper_scores: dict[tuple[str, str], float] = {}
    rows = read_rows(path, ("model", "set", "accuracy"))
    if not rows:
        raise UserError(f"{path}: holds no row below its header: fill in model, set, accuracy (percent)")
    for number, row in enumerate(rows, 1):
        location, key = f"{path}, row {number}", (row["model"], row["set"])
        if not row["model"] or (row["model"] not in models and _find_similar(row["model"], models)):
            raise UserError(f"{location}, column model: no {row['model']!r} in this run; {find_nearest(row['model'], [*models])}")
        if row["set"] not in SET_LABELS:
            nearest = find_nearest(row["set"], [*SET_LABELS])
            raise UserError(f"{location}, column set: no set {row['set']!r}; {nearest}. The sets are {', '.join(SET_LABELS)}")
        if key in paper_scores:
            raise UserError(f"{location}: {key[0]} on {key[1]} is given twice")
        text = row["accuracy"].removesuffix("%").strip()
        if not text:
            continue
        try:
            percent = float(text)
        except ValueError:
            percent = math.nan
        if not 0 <= percent <= 100:
            raise UserError(f"{location}, column accuracy: {text!r} is not a percentage from 0 to 100, such as 62.5")
        if 0 < percent <= 1:  # no paper prints an accuracy of less than one in a hundred
            percentage = f"{100 * percent:g}"
            raise UserError(f"{location}, column accuracy: {text} is a share, expected a percentage: write {percentage}")
        paper_scores[key] = percent / 100
    return paper_scores


def _find_similar(name: str, known: Collection[str]) -> list[str]:
    """Names that differ from `name` in letter case, punctuation or a letter or two: MIM-LLaVA-Med is none of LLaVA-Med."""
    plain_names = [re.sub(r"\W|_", "", text.lower()) for text in (name, *known)]
    return get_close_matches(plain_names[0], plain_names[1:], 1, 0.88)

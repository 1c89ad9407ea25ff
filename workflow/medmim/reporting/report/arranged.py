"""The leaderboard as a paper prints it: models down, sets across, in Markdown and in LaTeX (booktabs).

A cell is a score in percent with its 95 % interval. Closed questions are told by accuracy, on the whole benchmark and on the part
that shares no patient or image with training; open ones by each metric. A table of what stands behind the scores ends the page.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medmim.questions.sets import HELD_IN
from medmim.reporting.report.board import BASELINES, LABELS, SUMS, label, ordered
from medmim.scoring.items import METRICS

ABSENT = "not available"
SIZE = "questions / patients"
GROUPS = {"held_in": "Held-in", "held_out": "Held-out"}
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
METRIC_LABELS = {
    "exact_match": "exact match",
    "token_recall": "token recall",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
}


@dataclass(frozen=True)
class Table:
    """A table to print: columns of two levels, texts as cells, `bold` where a cell is the best of its column."""

    title: str
    note: str
    cells: pd.DataFrame
    bold: pd.DataFrame | None = None

    def markdown(self) -> str:
        """With a heading of its own."""
        shown = self.cells.map(_marked)
        if self.bold is not None:
            shown = shown.where(~self.bold, "**" + shown + "**")
        shown.index = shown.index.map(_marked)
        shown.columns = [" ".join(c for c in column if c) if isinstance(column, tuple) else column for column in shown.columns]
        return f"## {self.title}\n\n{shown.to_markdown(disable_numparse=True)}\n\n{_marked(self.note)}\n"

    def latex(self) -> str:
        """A table environment for a preamble with booktabs."""
        style = self.cells.style.format(escape="latex").format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
        if self.bold is not None:
            bold = self.bold.map(lambda best: "textbf:--rwrap;" if best else "")
            style = style.apply(lambda _: bold, axis=None)
        printed: str = style.to_latex(
            hrules=True, multicol_align="c", column_format="l" + "r" * self.cells.shape[1], position="ht",
            position_float="centering", caption=f"{_escaped(self.title)}. {_escaped(self.note)}",
        )  # fmt: skip
        return printed.replace(MINUS, "$-$").replace(DASH, "--")


def _marked(text: str) -> str:
    """Text that Markdown shows as it is, in a cell too."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text.replace("\n", " "))


def _escaped(text: str) -> str:
    marks = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(marks.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _cell(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["ci_low"]):
        return _percent(row["value"])
    return f"{_percent(row['value'])} ({_percent(row['ci_low'])}{DASH}{_percent(row['ci_high'])})"


def _columns(sets: Sequence[str]) -> list[tuple[str, str]]:
    """(group, set) in the paper's order: held-in, held-out, further sets; each sum at the end of its group."""
    held_in = [s for s in ordered(sets) if s in HELD_IN]
    more = [s for s in ordered(sets) if s not in LABELS]
    held_out = [s for s in ordered(sets) if s not in (*HELD_IN, *more, *SUMS)]
    found = [("held_in", s) for s in (*held_in, "held_in")] + [("held_out", s) for s in (*held_out, "held_out", *more)]
    return [(group, s) for group, s in found if s in sets]


def _scores(
    rows: pd.DataFrame, models: Sequence[str], title: str, note: str, paper: Mapping[tuple[str, str], float] | None, least: int
) -> Table | None:
    """One score of all models. paper: (model, set) -> share, a row below each model; least: items that rank a column."""
    columns = _columns(list(dict.fromkeys(rows["set"])))
    names = [m for m in models if m in set(rows["model"])] + [b for b in BASELINES if b in set(rows["model"])]
    if not columns or not names:
        return None
    known = {(r["model"], r["set"]): r for r in rows.to_dict("records")}
    sizes = [rows[rows["set"] == s].nlargest(1, "n").iloc[0] for _, s in columns]
    lines = {SIZE: [f"{row['n']} / {row['n_patients']}" for row in sizes]}
    best = {SIZE: [False] * len(columns)}
    top = {}
    for _, s in columns:
        values = {m: r["value"] for (m, t), r in known.items() if t == s and m not in BASELINES and r["n"] >= least}
        top[s] = max(values.values(), default=None) if len(values) > 1 else None
    for name in names:
        found = [known.get((name, s)) for _, s in columns]
        lines[name] = [ABSENT if r is None else _cell(r) for r in found]
        best[name] = [
            r is not None and name not in BASELINES and r["value"] == top[s] for r, (_, s) in zip(found, columns, strict=True)
        ]
        if paper is not None and name not in BASELINES:
            figures = [paper.get((name, s)) for _, s in columns]
            lines[f"{name}, in the paper"] = [ABSENT if f is None else _percent(f) for f in figures]
            best[f"{name}, in the paper"] = [False] * len(columns)
    index = pd.MultiIndex.from_tuples([(GROUPS[group], "all" if s in SUMS else label(s)) for group, s in columns])
    cells = pd.DataFrame.from_dict(lines, orient="index").set_axis(index, axis=1)
    return Table(title, note, cells, pd.DataFrame.from_dict(best, orient="index").set_axis(index, axis=1))


def arranged(
    board: pd.DataFrame,
    models: Sequence[str],
    *,
    paper: Mapping[tuple[str, str], float],
    least: int,
    behind: Sequence[Mapping[str, str]],
) -> list[Table]:
    """The tables of a leaderboard (frame of that table), models in the order given.

    paper: the paper's accuracies, (model, set) -> share of 1. least: open items from which a set is ranked.
    behind: rows of what stands behind the scores, by column.
    """
    plain = board[(board["condition"] == "plain")]
    closed = plain[(plain["kind"] == "closed") & (plain["metric"] == "accuracy")]
    whole, clean = (closed[closed["part"] == part] for part in ("all", "clean"))
    bold = "Bold: the highest value of a column, whether or not it can be told from the next: see comparisons.parquet."
    found = [
        _scores(
            whole, models, "Closed questions: accuracy in percent",
            f"In brackets 95 % intervals, bootstrap over patients. {bold} What can't be read as one option counts as wrong.",
            paper, 1,
        )
    ]  # fmt: skip
    if whole.groupby("set")["n"].max().equals(clean.groupby("set")["n"].max()):
        leak = "No question of the benchmark shares a patient or an image with training, so this is the whole of it."
    else:
        leak = "Only questions that share neither patient nor image with training."
    found.append(_scores(clean, models, "Closed questions without leakage: accuracy in percent", leak, None, 1))
    opened = plain[(plain["kind"] == "open") & (plain["part"] == "all")]
    for metric in METRICS["open"]:
        found.append(
            _scores(
                opened[opened["metric"] == metric], models, f"Open questions: {METRIC_LABELS[metric]} in percent",
                f"Columns of fewer than {least} questions are not ranked. The paper's metric for open questions is not known.",
                None, least,
            )
        )  # fmt: skip
    rest = pd.DataFrame(list(behind)).set_index("model")
    rest.index.name = None
    found.append(Table("What stands behind the scores", "Hashes are the first 12 hex digits of a sha256.", rest))
    return [table for table in found if table is not None]

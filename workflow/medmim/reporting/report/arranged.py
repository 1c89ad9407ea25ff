"""The leaderboard as a paper prints it: models down, sets across, in Markdown and in LaTeX (booktabs).

A cell is a score in percent with its 95 % interval. Closed questions are told by accuracy, on the whole benchmark and on the part
that shares no patient or image with training; open ones by each metric. A table of what stands behind the scores ends the page.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from medmim.common.formatting import MINUS, format_percent
from medmim.config.conditions import BASELINES
from medmim.questions.sets import HELD_IN, SUMS
from medmim.reporting.report.board import SET_LABELS, get_set_label, sort_sets
from medmim.scoring.items import METRIC_LABELS, METRICS

NOT_AVAILABLE = "not available"
SIZE_ROW = "questions / patients"
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class PaperTable:
    """A table to print: columns of two levels, texts as cells, `bold` where a cell is the best of its column."""

    title: str
    note: str
    cells: pd.DataFrame
    bold: pd.DataFrame | None = None

    def to_markdown(self) -> str:
        """With a heading of its own."""
        texts = self.cells.map(_escape_markdown)
        if self.bold is not None:
            texts = texts.where(~self.bold, "**" + texts + "**")
        texts.index = texts.index.map(_escape_markdown)
        texts.columns = [" ".join(c for c in column if c) if isinstance(column, tuple) else column for column in texts.columns]
        return f"## {self.title}\n\n{texts.to_markdown(disable_numparse=True)}\n\n{_escape_markdown(self.note)}\n"

    def to_latex(self) -> str:
        """A table environment for a preamble with booktabs."""
        style = self.cells.style.format(escape="latex").format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
        if self.bold is not None:
            bold = self.bold.map(lambda best: "textbf:--rwrap;" if best else "")
            style = style.apply(lambda _: bold, axis=None)
        latex_text: str = style.to_latex(
            hrules=True, multicol_align="c", column_format="l" + "r" * self.cells.shape[1], position="ht",
            position_float="centering", caption=f"{_escape_latex(self.title)}. {_escape_latex(self.note)}",
        )  # fmt: skip
        return latex_text.replace(MINUS, "$-$").replace(DASH, "--")


def _escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a cell too."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text.replace("\n", " "))


def _escape_latex(text: str) -> str:
    marks = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(marks.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


format_share = partial(format_percent, unit="")
"""0.7125 becomes 71.3: the tables' titles name the unit."""


def _format_cell(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["ci_low"]):
        return format_share(row["value"])
    return f"{format_share(row['value'])} ({format_share(row['ci_low'])}{DASH}{format_share(row['ci_high'])})"


def _order_columns(sets: Sequence[str]) -> list[tuple[str, str]]:
    """(group, set) in the paper's order: held-in, held-out, further sets; each sum at the end of its group."""
    held_in = [s for s in sort_sets(sets) if s in HELD_IN]
    more = [s for s in sort_sets(sets) if s not in SET_LABELS]
    held_out = [s for s in sort_sets(sets) if s not in (*HELD_IN, *more, *SUMS)]
    columns = [("held_in", s) for s in (*held_in, "held_in")] + [("held_out", s) for s in (*held_out, "held_out", *more)]
    return [(group, s) for group, s in columns if s in sets]


Rows = Mapping[tuple[str, str], Mapping[Any, Any]]
"""Rows of one score by model and set."""


def _find_best_values(rows: Rows, sets: Sequence[str], min_items: int) -> dict[str, float | None]:
    """Best value of each set that ranks several models; None where there is nothing to rank."""
    best_values: dict[str, float | None] = {}
    for name in sets:
        values = [r["value"] for (m, s), r in rows.items() if s == name and m not in BASELINES and r["n"] >= min_items]
        best_values[name] = max(values) if len(values) > 1 else None
    return best_values


def _format_paper_values(paper: Mapping[tuple[str, str], float], model: str, sets: Sequence[str]) -> list[str]:
    """A model's accuracies in the paper, set by set."""
    return [NOT_AVAILABLE if (value := paper.get((model, s))) is None else format_share(value) for s in sets]


def _label_columns(columns: Sequence[tuple[str, str]], labels: Mapping[str, str]) -> pd.MultiIndex:
    """Heads of the columns (group, set) for people."""
    return pd.MultiIndex.from_tuples([(SUMS[group], "all" if s in SUMS else get_set_label(s, labels)) for group, s in columns])


def _build_score_table(
    score_rows: pd.DataFrame,
    models: Sequence[str],
    title: str,
    note: str,
    paper: Mapping[tuple[str, str], float] | None,
    min_items: int,
    labels: Mapping[str, str],
) -> PaperTable | None:
    """Build the table of one score of all models; None where there is nothing to show.

    paper: (model, set) -> share, a row below each model. min_items: items from which a column is ranked.
    """
    columns = _order_columns(list(dict.fromkeys(score_rows["set"])))
    names = [m for m in (*models, *BASELINES) if m in set(score_rows["model"])]
    if not columns or not names:
        return None
    sets = [s for _, s in columns]
    rows: Rows = {(r["model"], r["set"]): r for r in score_rows.to_dict("records")}
    sizes = [score_rows[score_rows["set"] == s].nlargest(1, "n").iloc[0] for s in sets]
    lines = {SIZE_ROW: [f"{row['n']} / {row['n_patients']}" for row in sizes]}
    is_best = {SIZE_ROW: [False] * len(columns)}
    best_values = _find_best_values(rows, sets, min_items)
    for name in names:
        model_rows = [rows.get((name, s)) for s in sets]
        lines[name] = [NOT_AVAILABLE if r is None else _format_cell(r) for r in model_rows]
        is_best[name] = [
            r is not None and name not in BASELINES and r["value"] == best_values[s]
            for r, s in zip(model_rows, sets, strict=True)
        ]
        if paper is not None and name not in BASELINES:
            lines[f"{name}, in the paper"] = _format_paper_values(paper, name, sets)
            is_best[f"{name}, in the paper"] = [False] * len(columns)
    index = _label_columns(columns, labels)
    cells = pd.DataFrame.from_dict(lines, orient="index").set_axis(index, axis=1)
    return PaperTable(title, note, cells, pd.DataFrame.from_dict(is_best, orient="index").set_axis(index, axis=1))


def build_paper_tables(
    board: pd.DataFrame,
    models: Sequence[str],
    *,
    paper: Mapping[tuple[str, str], float],
    min_open_items: int,
    provenance_rows: Sequence[Mapping[str, str]],
    set_labels: Mapping[str, str] | None = None,
) -> list[PaperTable]:
    """Build the tables of a leaderboard (frame of that table), models in the order given.

    paper: the paper's accuracies, (model, set) -> share of 1. min_open_items: open items from which a set is ranked.
    provenance_rows: what stands behind the scores, by column. set_labels: names of further held-out sets for people.
    """
    labels = set_labels or {}
    plain = board[(board["condition"] == "plain")]
    closed = plain[(plain["kind"] == "closed") & (plain["metric"] == "accuracy")]
    all_closed, clean_closed = (closed[closed["part"] == part] for part in ("all", "clean"))
    bold_note = "Bold: the highest value of a column, whether or not it can be told from the next: see comparisons.parquet."
    paper_tables = [
        _build_score_table(
            all_closed, models, "Closed questions: accuracy in percent",
            f"In brackets 95 % intervals, bootstrap over patients. {bold_note} What can't be read as one option counts as wrong.",
            paper, 1, labels,
        )
    ]  # fmt: skip
    if all_closed.groupby("set")["n"].max().equals(clean_closed.groupby("set")["n"].max()):
        leak_note = "No question of the benchmark shares a patient or an image with training, so this is the whole of it."
    else:
        leak_note = "Only questions that share neither patient nor image with training."
    paper_tables.append(
        _build_score_table(
            clean_closed, models, "Closed questions without leakage: accuracy in percent", leak_note, None, 1, labels
        )
    )
    opened = plain[(plain["kind"] == "open") & (plain["part"] == "all")]
    for metric in METRICS["open"]:
        paper_tables.append(
            _build_score_table(
                opened[opened["metric"] == metric], models, f"Open questions: {METRIC_LABELS[metric]} in percent",
                f"Columns of fewer than {min_open_items} questions are not ranked. The paper's metric for open questions is "
                "not known.",
                None, min_open_items, labels,
            )
        )  # fmt: skip
    provenance = pd.DataFrame(list(provenance_rows)).set_index("model")
    provenance.index.name = None
    paper_tables.append(
        PaperTable("What stands behind the scores", "Hashes are the first 12 hex digits of a sha256.", provenance)
    )
    return [table for table in paper_tables if table is not None]

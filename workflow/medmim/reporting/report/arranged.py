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
from medmim.reporting.report.board import BASELINES, SET_LABELS, SUM_SETS, get_set_label, sort_sets
from medmim.scoring.items import METRICS

NOT_AVAILABLE = "not available"
SIZE_ROW = "questions / patients"
GROUP_LABELS = {"held_in": "Held-in", "held_out": "Held-out"}
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
METRIC_LABELS = {
    "exact_match": "exact match",
    "token_recall": "token recall",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
}


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


def _format_percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _format_cell(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["ci_low"]):
        return _format_percent(row["value"])
    return f"{_format_percent(row['value'])} ({_format_percent(row['ci_low'])}{DASH}{_format_percent(row['ci_high'])})"


def _order_columns(sets: Sequence[str]) -> list[tuple[str, str]]:
    """(group, set) in the paper's order: held-in, held-out, further sets; each sum at the end of its group."""
    held_in = [s for s in sort_sets(sets) if s in HELD_IN]
    more = [s for s in sort_sets(sets) if s not in SET_LABELS]
    held_out = [s for s in sort_sets(sets) if s not in (*HELD_IN, *more, *SUM_SETS)]
    columns = [("held_in", s) for s in (*held_in, "held_in")] + [("held_out", s) for s in (*held_out, "held_out", *more)]
    return [(group, s) for group, s in columns if s in sets]


def _build_score_table(
    rows: pd.DataFrame,
    models: Sequence[str],
    title: str,
    note: str,
    paper: Mapping[tuple[str, str], float] | None,
    min_items: int,
) -> PaperTable | None:
    """One score of all models. paper: (model, set) -> share, a row below each model; least: items that rank a column."""
    columns = _order_columns(list(dict.fromkeys(rows["set"])))
    names = [m for m in models if m in set(rows["model"])] + [b for b in BASELINES if b in set(rows["model"])]
    if not columns or not names:
        return None
    rows_by_cell = {(r["model"], r["set"]): r for r in rows.to_dict("records")}
    sizes = [rows[rows["set"] == s].nlargest(1, "n").iloc[0] for _, s in columns]
    lines = {SIZE_ROW: [f"{row['n']} / {row['n_patients']}" for row in sizes]}
    is_best = {SIZE_ROW: [False] * len(columns)}
    best_values = {}
    for _, s in columns:
        values = {m: r["value"] for (m, t), r in rows_by_cell.items() if t == s and m not in BASELINES and r["n"] >= min_items}
        best_values[s] = max(values.values(), default=None) if len(values) > 1 else None
    for name in names:
        model_rows = [rows_by_cell.get((name, s)) for _, s in columns]
        lines[name] = [NOT_AVAILABLE if r is None else _format_cell(r) for r in model_rows]
        is_best[name] = [
            r is not None and name not in BASELINES and r["value"] == best_values[s]
            for r, (_, s) in zip(model_rows, columns, strict=True)
        ]
        if paper is not None and name not in BASELINES:
            paper_values = [paper.get((name, s)) for _, s in columns]
            lines[f"{name}, in the paper"] = [NOT_AVAILABLE if f is None else _format_percent(f) for f in paper_values]
            is_best[f"{name}, in the paper"] = [False] * len(columns)
    index = pd.MultiIndex.from_tuples(
        [(GROUP_LABELS[group], "all" if s in SUM_SETS else get_set_label(s)) for group, s in columns]
    )
    cells = pd.DataFrame.from_dict(lines, orient="index").set_axis(index, axis=1)
    return PaperTable(title, note, cells, pd.DataFrame.from_dict(is_best, orient="index").set_axis(index, axis=1))


def build_paper_tables(
    board: pd.DataFrame,
    models: Sequence[str],
    *,
    paper: Mapping[tuple[str, str], float],
    min_open_items: int,
    provenance_rows: Sequence[Mapping[str, str]],
) -> list[PaperTable]:
    """The tables of a leaderboard (frame of that table), models in the order given.

    paper: the paper's accuracies, (model, set) -> share of 1. least: open items from which a set is ranked.
    behind: rows of what stands behind the scores, by column.
    """
    plain = board[(board["condition"] == "plain")]
    closed = plain[(plain["kind"] == "closed") & (plain["metric"] == "accuracy")]
    all_closed, clean_closed = (closed[closed["part"] == part] for part in ("all", "clean"))
    bold_note = "Bold: the highest value of a column, whether or not it can be told from the next: see comparisons.parquet."
    paper_tables = [
        _build_score_table(
            all_closed, models, "Closed questions: accuracy in percent",
            f"In brackets 95 % intervals, bootstrap over patients. {bold_note} What can't be read as one option counts as wrong.",
            paper, 1,
        )
    ]  # fmt: skip
    if all_closed.groupby("set")["n"].max().equals(clean_closed.groupby("set")["n"].max()):
        leak_note = "No question of the benchmark shares a patient or an image with training, so this is the whole of it."
    else:
        leak_note = "Only questions that share neither patient nor image with training."
    paper_tables.append(
        _build_score_table(clean_closed, models, "Closed questions without leakage: accuracy in percent", leak_note, None, 1)
    )
    opened = plain[(plain["kind"] == "open") & (plain["part"] == "all")]
    for metric in METRICS["open"]:
        paper_tables.append(
            _build_score_table(
                opened[opened["metric"] == metric], models, f"Open questions: {METRIC_LABELS[metric]} in percent",
                f"Columns of fewer than {min_open_items} questions are not ranked. The paper's metric for open questions is "
                "not known.",
                None, min_open_items,
            )
        )  # fmt: skip
    provenance = pd.DataFrame(list(provenance_rows)).set_index("model")
    provenance.index.name = None
    paper_tables.append(
        PaperTable("What stands behind the scores", "Hashes are the first 12 hex digits of a sha256.", provenance)
    )
    return [table for table in paper_tables if table is not None]

"""The audit of each benchmark set, ours beside the authors' release."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmim.benchmarks.quality.faults import FAULTS
from medmim.reporting.report.board import sort_sets
from medmim.tables import table_io

RELEASE_COUNTS = {
    "temporal": (903, 30),
    "reasoning": (454, 30),
    "comparison": (208, 136),
    "coreference": (1403, 60),
    "odir": (300, 300),
    "rad": (293, 73),
}
"""Closed and open questions of the release's benchmark files, as counted at commit c1cdc25 of github.com/Xikai97/Med-MIM."""
ORIGIN_LABELS = {"ours": "ours", "release": "release", "published": "release, as published"}
Figures = Mapping[tuple[str, str], float]
"""Value by statistic and key, of one set of one origin."""


@dataclass(frozen=True)
class ComparedFigure:
    """One line of a table: a figure of each origin, None where it is not known; `kind` says how it is written."""

    label: str
    kind: str
    cells: tuple[float | None, ...]


@dataclass(frozen=True)
class ComparedSet:
    """The figures of one benchmark set side by side."""

    set: str
    origins: tuple[str, ...]
    lines: tuple[ComparedFigure, ...]


def _published_figures(name: str) -> Figures:
    closed, open_count = RELEASE_COUNTS[name]
    return {("questions", "closed"): closed, ("questions", "open"): open_count}


def _read_figure(figures: Figures, statistic: str, key: str) -> float | None:
    """One figure; of the questions also their number and the share of open ones."""
    if statistic == "questions" and key in ("all", "open share"):
        closed, open_count = (figures.get(("questions", kind), 0) for kind in ("closed", "open"))
        return closed + open_count if key == "all" else open_count / max(closed + open_count, 1)
    return figures.get((statistic, key))


LINES = (
    ("questions", "count", "questions", "all"),
    ("closed", "count", "questions", "closed"),
    ("open", "count", "questions", "open"),
    ("share of open questions", "share", "questions", "open share"),
    ("words of an open answer, median", "count", "answer_words", "open median"),
    ("words of an open answer, mean", "number", "answer_words", "open mean"),
    ("words of an open answer, longest", "count", "answer_words", "open longest"),
    ("distinct texts of questions", "count", "wordings", ""),
    *((fault.replace("_", " "), "fault", "fault", fault) for fault in FAULTS),
    ("best answer that never changes", "share", "guess", "constant"),
    ("text only, taught by training", "share", "guess", "text_only"),
    ("text only, taught by the rest of the set", "share", "guess", "text_only_within"),
    ("metadata only, taught by the rest of the set", "share", "guess", "metadata_only_within"),
)
"""Label, kind, statistic and key of each line."""


def compare_audits(rows: Iterable[Mapping[str, Any]]) -> list[ComparedSet]:
    """A table of each benchmark set of ours, from rows of the statistics table.

    The release stands beside it where it was audited too; else its published numbers of questions do, where ours has others.
    A set of the release alone has no table: its figures are in the audit's own page.
    """
    figures: dict[str, dict[str, dict[tuple[str, str], float]]] = {}
    for row in rows:
        if row["split"] == "benchmark":
            figures.setdefault(row["set"], {}).setdefault(row["origin"], {})[row["statistic"], row["key"]] = row["value"]
    compared = []
    for name in sort_sets(s for s, origins in figures.items() if "ours" in origins):
        origins: dict[str, Figures] = {"ours": figures[name]["ours"]}
        if "release" in figures[name]:
            origins["release"] = figures[name]["release"]
        elif name in RELEASE_COUNTS:
            origins["published"] = _published_figures(name)
        lines = [
            ComparedFigure(label, kind, tuple(_read_figure(f, statistic, key) for f in origins.values()))
            for label, kind, statistic, key in LINES
        ]
        known_lines = tuple(line for line in lines if any(cell is not None for cell in line.cells))
        compared.append(ComparedSet(name, tuple(ORIGIN_LABELS[o] for o in origins), known_lines))
    return compared


def read_compared_audits(path: Path) -> list[ComparedSet]:
    """Of a statistics table. Raises TableError."""
    return compare_audits(table_io.read_table(path, "statistics").to_pylist())

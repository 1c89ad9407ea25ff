"""Figures: SVG for the page, whose colours follow the reader's light or dark theme, and PNG for a README.

An SVG is drawn in the light palette; then each colour is replaced by the page's variable of that name.
Same values, same bytes.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from medmim.common.formatting import MINUS, format_percent, format_points
from medmim.reporting.palette import LIGHT
from medmim.reporting.report.board import Cell

SERIES_COLOURS = [name for name in LIGHT if name.startswith("series")]
UNITS_PER_INCH = 72  # matplotlib's SVG units an inch
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["soft"],
    "axes.edgecolor": LIGHT["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 1,
    "axes.labelsize": 10,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["soft"],
    "ytick.labelcolor": LIGHT["soft"],
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "text.parse_math": False,
}
DOTTED_LINE = (0, (1.2, 1.6))


@dataclass(frozen=True)
class FigureRow:
    """One set of the main figure."""

    label: str
    """Name of the set for people."""
    is_sum: bool
    """A sum over the sets below it."""
    base: Cell | None
    tuned: Cell | None
    blind: Cell | None
    chance: Cell | None
    majority: Cell | None
    gain: Cell | None
    """Tuned minus base, paired."""
    sight: Cell | None
    """Tuned with images minus tuned blind, paired."""


@contextmanager
def _apply_style(name: str) -> Iterator[None]:
    """Matplotlib as it ships, whatever the user's settings, in our style; ids in the SVG derive from `name`."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": name})
        yield


def _render_svg(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an element of the page: page fonts and colours, no id but those referred to, as wide as there is room."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.S)
    referenced_ids = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in referenced_ids else "", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", svg)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    width, height = (round(inches * UNITS_PER_INCH) for inches in figure.get_size_inches())
    size_attributes = f'style="max-width:{width * 1.3:.0f}px" viewBox="0 0 {width} {height}"'
    head = f'<svg class="plot" {size_attributes} role="img" aria-label="{escape(title)}">'
    svg = re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.S).replace("xlink:href", "href")
    return Markup(re.sub(r"\s*\n\s*", " ", svg))  # drawn by matplotlib, which escapes text


def _create_figure(width: float, height: float) -> Figure:
    """A figure of that many units, CSS pixels where the page has room."""
    return Figure((width / UNITS_PER_INCH, height / UNITS_PER_INCH))


def _lay_out_rows(axes: Axes, rows: Sequence[FigureRow]) -> list[float]:
    """Lay sets out from top to bottom with room above each sum; returns their places."""
    positions, y = [], 0.0
    for i, row in enumerate(rows):
        y += 0.45 if row.is_sum and i else 0
        positions.append(y)
        y += 1
    axes.set_ylim(y - 0.45, -0.55)
    axes.set_yticks([])
    for row, position in zip(rows, positions, strict=True):
        axes.annotate(
            row.label,
            (0, position),
            (-8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            weight="bold" if row.is_sum else "normal",
        )
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    return positions


def _draw_interval(axes: Axes, cell: Cell | None, y: float, role: str, marker: str, size: float, *, hollow: bool = False) -> None:
    """A value and its interval."""
    if cell is None:
        return
    colour = LIGHT[role]
    if cell.low is not None and cell.high is not None:
        axes.plot([cell.low, cell.high], [y, y], color=colour, linewidth=1.6, alpha=0.55, solid_capstyle="butt")
    face = LIGHT["paper"] if hollow else colour
    axes.plot([cell.value], [y], marker, markersize=size, color=colour, markerfacecolor=face, markeredgewidth=1.4)


def _draw_comparison(axes: Axes, rows: Sequence[FigureRow]) -> None:
    positions = _lay_out_rows(axes, rows)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    for row, y in zip(rows, positions, strict=True):
        if row.chance:
            axes.plot([row.chance.value] * 2, [y - 0.38, y + 0.38], color=LIGHT["ink"], linewidth=1.2)
        if row.majority:
            axes.plot([row.majority.value] * 2, [y - 0.38, y + 0.38], color=LIGHT["ink"], linewidth=1.2, linestyle=DOTTED_LINE)
        _draw_interval(axes, row.base, y - 0.24, "base", "o", 5.5, hollow=True)
        _draw_interval(axes, row.tuned, y, "tuned", "o", 7.5 if row.is_sum else 6.5)
        _draw_interval(axes, row.blind, y + 0.24, "blind", "D", 4, hollow=True)
        if row.gain:
            axes.annotate(
                format_points(row.gain.value),
                (1, y),
                (14, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center_baseline",
                weight="bold" if row.is_sum else "normal",
                color=LIGHT[{1: "good", -1: "bad", 0: "soft"}[row.gain.direction]],
            )
    if any(row.gain for row in rows):
        axes.annotate(
            f"tuned {MINUS} base",
            (1, 1),
            (38, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
            size=9,
            color=LIGHT["soft"],
        )


def _compute_height(rows: Sequence[FigureRow]) -> float:
    return 36 * len(rows) + 16 * sum(r.is_sum for r in rows[1:])


def plot_comparison(name: str, rows: Sequence[FigureRow]) -> Markup:
    """Base against tuned on every set, with the tuned model blind, chance and majority; the gain in points beside it."""
    height = _compute_height(rows)
    with _apply_style(f"comparison {name}"):
        figure = _create_figure(420, height + 44)
        _draw_comparison(figure.add_axes((92 / 420, 26 / (height + 44), 284 / 420, height / (height + 44))), rows)
        return _render_svg(figure, name, f"Accuracy per set: {name}")


def plot_differences(name: str, rows: Sequence[FigureRow]) -> Markup:
    """Paired differences on every set: tuned minus base, and with images minus blind."""
    height = _compute_height(rows)
    with _apply_style(f"differences {name}"):
        figure = _create_figure(420, height + 44)
        axes = figure.add_axes((92 / 420, 26 / (height + 44), 304 / 420, height / (height + 44)))
        positions = _lay_out_rows(axes, rows)
        cells = [c for r in rows for c in (r.gain, r.sight) if c]
        ends = [x for c in cells for x in (c.value, c.low, c.high) if x is not None]
        axes.set_xlim(min([-0.1, *ends]) - 0.04, max([0.1, *ends]) + 0.04)
        axes.axvline(0, color=LIGHT["ink"], linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda x, _: format_points(x))
        for row, y in zip(rows, positions, strict=True):
            _draw_interval(axes, row.gain, y - 0.14, "tuned", "o", 6)
            _draw_interval(axes, row.sight, y + 0.14, "blind", "D", 4.5, hollow=True)
        return _render_svg(figure, name, f"Paired differences per set: {name}")


LEGEND = (("base", "o", "base"), ("tuned", "o", "tuned"), ("blind", "D", "tuned, without images"))


def render_summary_png(panels: Sequence[tuple[str, Sequence[FigureRow]]], title: str, note: str) -> bytes:
    """PNG of the main figure: one panel per (title, rows), a legend, and a note below."""
    height = max(_compute_height(rows) for _, rows in panels)
    width, total = 430 * len(panels) + 20, height + 150
    with _apply_style("picture"):
        matplotlib.rcParams["figure.facecolor"] = LIGHT["paper"]
        figure = _create_figure(width, total)
        figure.text(20 / width, 1 - 16 / total, title, size=14, weight="bold", va="top")
        for i, (name, rows) in enumerate(panels):
            left, panel_height = 430 * i + 112, _compute_height(rows)
            axes = figure.add_axes((left / width, (72 + height - panel_height) / total, 284 / width, panel_height / total))
            _draw_comparison(axes, rows)
            axes.annotate(
                name,
                (0, 1),
                (0, 8),
                xycoords="axes fraction",
                textcoords="offset points",
                weight="bold",
                color=LIGHT["tuned"],
            )
        handles = [
            Line2D(
                [],
                [],
                color=LIGHT[role],
                marker=marker,
                linewidth=1.6,
                markersize=6,
                markerfacecolor=LIGHT[role] if role == "tuned" else LIGHT["paper"],
                label=text,
            )
            for role, marker, text in LEGEND
        ]
        handles += [
            Line2D([], [], color=LIGHT["ink"], linewidth=1.2, label="chance"),
            Line2D([], [], color=LIGHT["ink"], linewidth=1.2, linestyle=DOTTED_LINE, label="always the most frequent letter"),
        ]
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(10 / width, 22 / total), ncols=5, columnspacing=1.6)
        figure.text(20 / width, 10 / total, note, size=9.5, color=LIGHT["soft"])
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
        return png.getvalue()


def plot_losses(stage: str, curves: Mapping[str, pd.DataFrame], colours: Mapping[str, str]) -> Markup:
    """Training loss of one stage, a curve per model; `colours` maps a model to its role in the palette."""
    with _apply_style(f"loss {stage}"):
        figure = _create_figure(310, 215)
        axes = figure.add_axes((0.13, 0.18, 0.84, 0.78))
        for model, rows in curves.items():
            axes.plot(rows["step"], rows["loss"], color=LIGHT[colours[model]], linewidth=1.8, label=model)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("optimizer steps")
        axes.grid(axis="y")
        axes.tick_params(length=0, pad=6)
        axes.spines["left"].set_visible(False)
        axes.legend(loc="upper right")
        return _render_svg(figure, stage, f"Training loss, stage {stage}")


def plot_question_counts(split: str, counts: Sequence[tuple[str, int, int]]) -> Markup:
    """Questions per set: (name for people, closed, open) as stacked bars."""
    height = 27 * len(counts) + 8
    with _apply_style(f"questions {split}"):
        figure = _create_figure(420, height)
        axes = figure.add_axes((92 / 420, 0, 268 / 420, 1))
        names = [name for name, _, _ in counts]
        closed, opened = [c for _, c, _ in counts], [o for _, _, o in counts]
        axes.barh(range(len(counts)), closed, 0.62, color=LIGHT["series7"])
        axes.barh(range(len(counts)), opened, 0.62, left=closed, color=LIGHT["series2"])
        for i, (a, b) in enumerate(zip(closed, opened, strict=True)):
            axes.annotate(f"{a + b:,}", (a + b, i), (6, 0), textcoords="offset points", va="center_baseline", color=LIGHT["soft"])
        axes.set_yticks(range(len(counts)), [n for n in names])
        axes.tick_params(axis="y", length=0, labelsize=11, labelcolor=LIGHT["ink"])
        axes.set_ylim(len(counts) - 0.45, -0.55)
        axes.set_xlim(0, max(1, *(a + b for a, b in zip(closed, opened, strict=True))))
        axes.xaxis.set_visible(False)
        axes.spines[["left", "bottom"]].set_visible(False)
        return _render_svg(figure, split, f"Questions per set, {split}")


def plot_shares(name: str, counts: Mapping[str, Mapping[str, int]], xlabel: str) -> Markup:
    """Share of each category in each series, side by side: {series: {category: count}}, at most two series."""
    categories = sorted({c for series in counts.values() for c in series}, key=lambda c: (len(c), c))
    with _apply_style(f"shares {name}"):
        figure = _create_figure(420, 190)
        axes = figure.add_axes((0.12, 0.2, 0.86, 0.76))
        width = 0.8 / max(1, len(counts))
        for i, values in enumerate(counts.values()):
            total = sum(values.values()) or 1
            positions = [x + (i - (len(counts) - 1) / 2) * width for x in range(len(categories))]
            colour = LIGHT[("base", "series7")[i]]
            heights = [values.get(c, 0) / total for c in categories]
            axes.bar(positions, heights, width * 0.92, color=colour)
            for x, h in zip(positions, heights, strict=True):
                axes.annotate(
                    f"{h * 100:.0f}",
                    (x, h),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    size=9,
                    color=LIGHT["soft"],
                )
        axes.set_xticks(range(len(categories)), categories)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda y, _: format_percent(y, 0))
        axes.margins(y=0.15)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        return _render_svg(figure, name, f"{xlabel}, share of questions")

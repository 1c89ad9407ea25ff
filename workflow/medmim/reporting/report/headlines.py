"""The run's result in a line for each tuned model."""

from collections.abc import Iterator
from functools import partial

from medmim.common.formatting import format_points
from medmim.questions.sets import SUMS
from medmim.reporting.report.board import Cell, Leaderboard

format_difference = partial(format_points, digits=1)
"""0.215 becomes +21.5."""


def format_point_interval(cell: Cell) -> str:
    """+15.0 to +28.1 in percentage points; empty where there is none."""
    return "" if cell.low is None or cell.high is None else f"{format_difference(cell.low)} to {format_difference(cell.high)}"


def format_headlines(board: Leaderboard) -> Iterator[str]:
    """How far each tuned model is above its base on closed questions: held-in, or held-out where there are no others."""
    for model in dict.fromkeys(row["model"] for row in board.rows):
        gains = {name: gain for name in SUMS if (gain := board.get(model, name, "accuracy_minus_base"))}
        for name, gain in list(gains.items())[:1]:
            interval = f", 95 % interval {format_point_interval(gain)}" if format_point_interval(gain) else ""
            yield f"{model}: {format_difference(gain.value)} points over its base on {SUMS[name].lower()} questions{interval}"

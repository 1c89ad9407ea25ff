import math

import pandas as pd

from medmim.reporting.report.board import Leaderboard
from medmim.reporting.report.headlines import format_headlines


def make_row(model: str, set_: str, value: float, low: float = math.nan, high: float = math.nan) -> dict[str, object]:
    return {
        "model": model, "set": set_, "ability": set_, "kind": "closed", "condition": "plain", "part": "all",
        "metric": "accuracy_minus_base", "value": value, "ci_low": low, "ci_high": high, "n": 9, "n_patients": 9,
    }  # fmt: skip


def test_a_line_for_each_tuned_model() -> None:
    rows = [
        make_row("a", "held_out", 0.5, 0.4, 0.6),
        make_row("a", "held_in", 0.15, 0.081, 0.219),
        make_row("b", "held_out", -0.02, -0.05, 0.01),
        make_row("c", "held_in", 0.0),
        {**make_row("base", "held_in", 0.3), "metric": "accuracy"},
    ]
    assert list(format_headlines(Leaderboard(pd.DataFrame(rows)))) == [
        "a: +15.0 points over its base on held-in questions, 95 % interval +8.1 to +21.9",
        "b: −2.0 points over its base on held-out questions, 95 % interval −5.0 to +1.0",
        "c: 0.0 points over its base on held-in questions",
    ]

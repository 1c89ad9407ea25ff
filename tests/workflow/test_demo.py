"""The demo, whole: the claim in small, measured on what `make demo` makes."""

from pathlib import Path

import pandas as pd
import pytest

from medmim import tables

PAIRS = {"med-mantis": "mantis", "mim-llava-med": "llava-med"}


@pytest.fixture(scope="module")
def board(demo: Path) -> pd.DataFrame:
    return tables.frame(demo / "results/demo/leaderboard.parquet", "leaderboard")


def cell(board: pd.DataFrame, model: str, metric: str, condition: str = "plain", set_: str = "held_in") -> pd.Series:
    rows = board[
        (board.model == model)
        & (board.metric == metric)
        & (board.set == set_)
        & (board.kind == "closed")
        & (board.condition == condition)
    ]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize("tuned", PAIRS)
def test_tuning_teaches_comparing_images(board: pd.DataFrame, tuned: str) -> None:
    gain = cell(board, tuned, "accuracy_minus_base")
    assert gain.value >= 0.20 and gain.ci_low > 0
    assert gain.value == pytest.approx(cell(board, tuned, "accuracy").value - cell(board, PAIRS[tuned], "accuracy").value)


@pytest.mark.parametrize("tuned", PAIRS)
def test_the_tuned_model_looks_at_the_images(board: pd.DataFrame, tuned: str) -> None:
    assert cell(board, tuned, "accuracy").value - cell(board, tuned, "accuracy", "blind").value >= 0.15
    assert cell(board, tuned, "accuracy").value > cell(board, "majority", "accuracy").value


def test_held_out_sets_are_reported(board: pd.DataFrame) -> None:
    for model in [*PAIRS, *PAIRS.values()]:
        for set_ in ("rad", "odir", "held_out"):
            assert cell(board, model, "accuracy", set_=set_).n > 0


def test_every_stage_said_what_it_made(demo: Path) -> None:
    logs = {p.name.split(".")[0]: p.read_text() for p in (demo / "results/demo/logs").glob("*.log")}
    assert logs.keys() >= {
        "make_phantoms",
        "build_images",
        "generate_qa",
        "merge_qa",
        "build_shards",
        "make_base",
        "tune",
        "predict",
        "score",
    }
    assert all(log.strip() for log in logs.values())

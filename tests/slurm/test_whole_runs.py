"""Whole runs: the claim in small, measured on the demo; and a small one by the literal --profile slurm, in its bytes."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from cluster import Cluster
from submit import RUN_PATH, SnakemakeRun

from medmim.provenance import job_record
from medmim.tables import table_io
from runs import hash_artifacts

PAIRS = {"med-mantis": "mantis", "mim-llava-med": "llava-med"}


@pytest.fixture(scope="module")
def board(demo: Path) -> pd.DataFrame:
    board = table_io.read_frame(demo / "results/demo/leaderboard.parquet", "leaderboard")
    return board[board.part == "all"]


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
    assert gain.value >= 0.12 and gain.ci_low > 0
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
        "find_copies",
        "merge_qa",
        "build_shards",
        "make_base",
        "tune",
        "predict",
        "score",
    }
    assert all(log.strip() for log in logs.values())


@pytest.fixture(scope="module")
def submitted(running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("submitted")
    SnakemakeRun(folder, fast=False).wait_for_end(seconds=3000)
    yield folder


def test_every_artifact_has_the_same_bytes_as_on_one_machine(submitted: Path, mini: Path) -> None:
    here, there = hash_artifacts(mini), hash_artifacts(submitted)
    assert len(here) > 60 and here.keys() >= {"leaderboard.parquet", "report.html", "models/med-mantis/adapter_model.safetensors"}
    assert [name for name in here if there.get(name) != here[name]] == [] and there.keys() == here.keys()


def test_all_of_it_ran_on_the_nodes(submitted: Path, running: Cluster) -> None:
    jobs = running.list_jobs().values()
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert {job["NodeList"] for job in jobs} == {"c1", "c2"}
    hosts = {job_record.read_record(path)["machine"]["host"] for path in job_record.find_sidecars(submitted / RUN_PATH)}
    assert hosts == {"c1", "c2"}


def test_a_second_call_has_nothing_to_do(cluster: Cluster, submitted: Path) -> None:
    before = len(cluster.list_jobs())
    assert "Nothing to be done" in SnakemakeRun(submitted, fast=False).wait_for_end()
    assert len(cluster.list_jobs()) == before


def test_its_audit_finds_no_fault(cluster: Cluster, submitted: Path) -> None:
    assert "agree with their provenance" in SnakemakeRun(submitted, "audit", fast=False).wait_for_end()

"""A group of jobs, which is one SLURM job, is disturbed: its members that were done stay done, in the same run of Snakemake."""

from pathlib import Path

import pytest
from cluster import Cluster, run_client
from submit import RUN_PATH, SnakemakeRun, copy_run_without, find_unfinished, list_outcomes

from runs import find_faults, hash_artifacts

SCORES = ("scores/mantis.parquet", "scores/llava-med.parquet")
LATER = ("leaderboard.parquet", "comparisons.parquet", "report.html")


@pytest.fixture
def folder(mini: Path, tmp_path: Path) -> Path:
    """A finished run without two scores and all that is made of scores."""
    return copy_run_without(mini, tmp_path, *SCORES, *LATER)


def halt_leaderboard(cluster: Cluster, folder: Path) -> str:
    """Halt the group when its scores are done and its leaderboard is in the middle; its SLURM job."""
    claim = folder / RUN_PATH / ".leaderboard.parquet.partial-claim"
    cluster.halt_program("leaderboard.py", claim.exists)
    [job] = [job["JobId"] for job in cluster.list_jobs().values() if job["JobState"] == "RUNNING"]
    return job


def list_inodes(folder: Path) -> list[int]:
    return [(folder / RUN_PATH / name).stat().st_ino for name in SCORES]


def check_completed(folder: Path, mini: Path, inodes: list[int]) -> None:
    """Scores were made once, the rest was completed, and all is as in a run that nothing disturbed."""
    assert list_outcomes(folder, "score") == ["done"] * len(SCORES) and list_inodes(folder) == inodes
    assert list_outcomes(folder, "leaderboard")[-1] == "done" and len(list_outcomes(folder, "leaderboard")) == 2
    assert list_outcomes(folder, "report") == ["done"]
    assert hash_artifacts(folder) == hash_artifacts(mini)
    assert find_unfinished(folder) == [] and find_faults(folder) == []


def test_a_group_that_slurm_queues_again(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder)
    job = halt_leaderboard(cluster, folder)
    inodes = list_inodes(folder)
    run_client("scontrol", "requeue", job)
    run.wait_for_end()
    assert cluster.list_jobs()[job]["Restarts"] == "1"
    check_completed(folder, mini, inodes)


def test_a_group_whose_time_is_over(cluster: Cluster, mini: Path, folder: Path) -> None:
    """It is tried again, with more time."""
    run = SnakemakeRun(folder)
    job = halt_leaderboard(cluster, folder)
    inodes = list_inodes(folder)
    run_client("scontrol", "update", f"JobId={job}", "TimeLimit=00:00:01")
    said = run.wait_for_end()
    assert f"SLURM-job '{job}' failed, SLURM status is: 'TIMEOUT'" in said and "Trying to restart" in said
    [retry] = [known for number, known in cluster.list_jobs().items() if int(number) > int(job)]
    assert retry["TimeLimit"] == "06:00:00"  # an hour for each of three members that follow each other, twice
    check_completed(folder, mini, inodes)


def test_a_member_that_is_forced_is_made_anew(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    """Its output was there and fresh before: a start that comes again tells it from one that it has made by the SLURM job."""
    folder = copy_run_without(mini, tmp_path)
    run = SnakemakeRun(folder, "--forcerun", f"{RUN_PATH}/{SCORES[0]}")
    score = folder / RUN_PATH / SCORES[0]
    cluster.halt_program("score.py", score.with_name(f".{score.name}.partial-claim").exists)
    [job] = [job["JobId"] for job in cluster.list_jobs().values() if job["JobState"] == "RUNNING"]
    run_client("scontrol", "requeue", job)
    run.wait_for_end()
    assert list_outcomes(folder, "score") == ["killed", "done"]
    assert hash_artifacts(folder) == hash_artifacts(mini)

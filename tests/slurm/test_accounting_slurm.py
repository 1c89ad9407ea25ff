"""A site with an accounting database, and a controller that forgets ended jobs at once: sacct says how they ended."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, run_client, wait_until
from submit import RUN_PATH, SnakemakeRun, copy_run_without, list_outcomes

from runs import hash_artifacts

LOST = ("predictions/mantis.parquet", "predictions/llava-med.parquet")


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster(database=True, min_job_age=2) as cluster:
        yield cluster


def test_jobs_that_squeue_has_forgotten_are_asked_of_sacct(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    """One that was cancelled, which sacct writes as CANCELLED by 0, and one that completed."""
    folder = copy_run_without(mini, tmp_path, *LOST)
    run = SnakemakeRun(folder, *(f"{RUN_PATH}/{name}" for name in LOST), "--retries", "1")
    wait_until(lambda: len(cluster.find_processes("predict.py")) == 2, "both jobs")
    processes = cluster.find_processes("predict.py")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    run.send_signal(signal.SIGSTOP)
    cancelled, other = (job["JobId"] for job in cluster.list_jobs().values() if job["JobState"] == "RUNNING")
    run_client("scancel", cancelled)
    wait_until(lambda: run_client("sacct", "-nX", "-j", cancelled, "-o", "State%30").strip() == "CANCELLED by 0", "sacct to know")
    for process in cluster.find_processes("predict.py"):
        os.kill(process, signal.SIGCONT)
    wait_until(lambda: not {cancelled, other} & cluster.list_jobs().keys(), "squeue to forget")
    run.send_signal(signal.SIGCONT)
    said = run.wait_for_end()
    assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED'" in said and f"'{other}' failed" not in said
    assert "Falling back" not in said
    assert list_outcomes(folder, "predict").count("done") == 2
    assert hash_artifacts(folder) == hash_artifacts(mini)


def test_a_job_that_is_cancelled_while_it_is_watched(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    folder = copy_run_without(mini, tmp_path, LOST[0])
    run = SnakemakeRun(folder, f"{RUN_PATH}/{LOST[0]}", "--retries", "1")
    cluster.halt_program("predict.py")
    run_client("scancel", *cluster.list_jobs())
    assert "SLURM status is: 'CANCELLED'" in run.wait_for_end()
    assert hash_artifacts(folder) == hash_artifacts(mini)

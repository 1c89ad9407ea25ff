"""A site with an accounting database, and a controller that forgets ended jobs at once: sacct says how they ended."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, call, until
from submit import RUN, Submitted, outcomes, without

from runs import artifacts

LOST = ("predictions/mantis.parquet", "predictions/llava-med.parquet")


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster(database=True, min_job_age=2) as cluster:
        yield cluster


def test_jobs_that_squeue_has_forgotten_are_asked_of_sacct(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    """One that was cancelled, which sacct writes as CANCELLED by 0, and one that completed."""
    folder = without(mini, tmp_path, *LOST)
    run = Submitted(folder, *(f"{RUN}/{name}" for name in LOST), "--retries", "1")
    until(lambda: len(cluster.processes("predict.py")) == 2, "both jobs")
    processes = cluster.processes("predict.py")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    run.send(signal.SIGSTOP)
    cancelled, other = (job["JobId"] for job in cluster.jobs().values() if job["JobState"] == "RUNNING")
    call("scancel", cancelled)
    until(lambda: call("sacct", "-nX", "-j", cancelled, "-o", "State%30").strip() == "CANCELLED by 0", "sacct to know")
    for process in cluster.processes("predict.py"):
        os.kill(process, signal.SIGCONT)
    until(lambda: not {cancelled, other} & cluster.jobs().keys(), "squeue to forget")
    run.send(signal.SIGCONT)
    said = run.end()
    assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED'" in said and f"'{other}' failed" not in said
    assert "Falling back" not in said
    assert outcomes(folder, "predict").count("done") == 2
    assert artifacts(folder) == artifacts(mini)


def test_sacct_as_the_status_command_of_a_site(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    folder = without(mini, tmp_path, LOST[0])
    run = Submitted(folder, f"{RUN}/{LOST[0]}", "--slurm-status-command", "sacct", "--retries", "1")
    cluster.halt("predict.py")
    call("scancel", *cluster.jobs())
    assert "SLURM status is: 'CANCELLED'" in run.end()
    assert artifacts(folder) == artifacts(mini)

"""A site with an accounting database, and a controller that forgets ended jobs at once: sacct says how they ended."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, run_client, wait_until
from queue_run import QueueRun
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


def test_a_submit_limit_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    """One job at a time may be in the queue: both are done, with no retry."""
    run_client("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=1")
    try:
        run = QueueRun(tmp_path)
        run.wait_for_output("SLURM takes no job for now (")
        run.let_go()
    finally:
        run_client("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")
    assert "AssocMaxSubmitJobLimit" in run.output and run.count_runs("a") == run.count_runs("b") == 1


def test_a_time_above_the_accounts_limit_is_explained(cluster: Cluster, tmp_path: Path) -> None:
    run_client("sacctmgr", "-i", "modify", "user", "root", "set", "MaxWall=1")
    try:
        run = QueueRun(tmp_path, "a.txt")
        run.wait_for_output("AssocMaxWallDurationPerJobLimit (they can never start")
        run_client("sacctmgr", "-i", "modify", "user", "root", "set", "MaxWall=-1")
        run.let_go()
    finally:
        run_client("sacctmgr", "-i", "modify", "user", "root", "set", "MaxWall=-1")


def test_jobs_of_several_clusters(cluster: Cluster, tmp_path: Path) -> None:
    """One of another cluster, by the profile; then all of them, by the user's environment: taken over and cancelled there."""
    cluster.add_cluster("other", "o1")
    elsewhere = ("--set-resources", "last:slurm_cluster=other")
    QueueRun(tmp_path, "last", *elsewhere).let_go()
    rows = run_client("sacct", "--allclusters", "-nXP", "-o", "WorkDir,Cluster,State").splitlines()
    assert sorted(row.split("|")[1:] for row in rows if row.startswith(f"{tmp_path}|")) == [
        ["other", "COMPLETED"],
        ["test", "COMPLETED"],
    ]
    (tmp_path / "go").unlink()
    run = QueueRun(tmp_path, "b.txt", SLURM_CLUSTERS="other")
    wait_until((tmp_path / "b.runs").exists, lambda: run.output)
    run.kill()
    QueueRun(tmp_path, "--unlock").wait_for_end()
    run = QueueRun(tmp_path, "b.txt", SLURM_CLUSTERS="other")
    run.wait_for_output("of cluster other")
    run.send_signal(signal.SIGINT)
    assert "taken over" in run.wait_for_end(ok=False) and run.count_runs("b") == 1
    wait_until(lambda: not run_client("squeue", "--clusters=other", "-h").splitlines()[1:], "the job to be cancelled")

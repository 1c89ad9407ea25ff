"""What a queue does to jobs, and SLURM's clients to who asks them: small jobs of a Snakefile that is none of ours."""

import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from cluster import Cluster, run_client, wait_until
from queue_run import QueueRun, replace_client


@pytest.fixture
def short(cluster: Cluster) -> Iterator[str]:
    """A partition with a limit of 90 minutes."""
    run_client("scontrol", "create", "PartitionName=short", "Nodes=c1,c2", "MaxTime=90")
    yield "short"
    run_client("scancel", "--partition=short")
    wait_until(lambda: not run_client("squeue", "--noheader", "--partition=short"), "jobs to end")
    run_client("scontrol", "delete", "PartitionName=short")


# Submission


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ("slurm_partition=nosuch", "invalid partition specified: nosuch"),
        ("slurm_extra='--nodes=2'", "not allowed in the 'slurm_extra'"),
        ("mem_mb=999999999", "Memory specification can not be satisfied"),
    ],
)
def test_a_group_that_is_refused_ends_with_the_reason(cluster: Cluster, tmp_path: Path, resource: str, words: str) -> None:
    run = QueueRun(tmp_path, "last", "--config", "group=g", "--set-resources", f"first:{resource}", f"last:{resource}")
    said = run.wait_for_end(ok=False)
    assert words in said and "Traceback" not in said and not (tmp_path / "a.runs").exists()


@pytest.mark.parametrize(
    "script",
    [
        'echo "Welcome to cluster 9: 120 of 400 nodes are free"; exec "$REAL" "$@"',
        'echo "Submitting for project 7 …"; "$REAL" "$@" > /dev/null',
        '"$REAL" "$@" > /dev/null; echo "sbatch: error: Socket timed out on send/recv operation" >&2\nexit 1',
    ],
    ids=["greeting", "no id", "timed out but accepted"],
)  # fmt: skip
def test_what_sbatch_says_is_understood_or_the_queue_asked(cluster: Cluster, tmp_path: Path, script: str) -> None:
    run = QueueRun(tmp_path, "a.txt", PATH=replace_client(tmp_path, "sbatch", script))
    run.let_go()
    assert run.count_runs("a") == 1 and len(run.list_jobs(cluster)) == 1


def test_a_partition_that_drains_is_waited_for_and_others_are_not(cluster: Cluster, short: str, tmp_path: Path) -> None:
    run_client("scontrol", "update", "PartitionName=short", "State=DRAIN")
    run = QueueRun(tmp_path, "last", "b.txt", "--set-resources", "last:slurm_partition=short")
    run.folder.joinpath("go").touch()
    wait_until((tmp_path / "b.txt").exists, lambda: run.output)
    run.wait_for_output("SLURM takes no job for now (slurm_partition=short: ")
    assert not (tmp_path / "last").exists()
    run_client("scontrol", "update", "PartitionName=short", "State=UP")
    run.wait_for_end()
    assert run.log.read_text().count("SLURM takes no job for now") == 1 and (tmp_path / "last").exists()


def test_what_is_not_submitted_yet_does_not_keep_snakemake(cluster: Cluster, short: str, tmp_path: Path) -> None:
    run_client("scontrol", "update", "PartitionName=short", "State=DRAIN")
    run = QueueRun(tmp_path, "a.txt", "--set-resources", "first:slurm_partition=short")
    run.wait_for_output("SLURM takes no job for now")
    run.send_signal(signal.SIGTERM)
    assert "not submitted: Snakemake was told to end" in run.wait_for_end(ok=False)


# In the queue


def test_a_job_that_can_never_start_is_explained(cluster: Cluster, short: str, tmp_path: Path) -> None:
    run = QueueRun(tmp_path, "a.txt", "--set-resources", "first:slurm_partition=short", "first:runtime=120")
    run.wait_for_output("PartitionTimeLimit (they can never start: their time is above their partition's limit")
    [job] = run.list_jobs(cluster)
    run_client("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    run.let_go()
    assert run.log.read_text().count("PartitionTimeLimit") == 1


def test_held_jobs_are_explained(cluster: Cluster, tmp_path: Path) -> None:
    """Held before it starts, and queued again in hold while it runs."""
    run = QueueRun(tmp_path, "a.txt", PATH=replace_client(tmp_path, "sbatch", 'exec "$REAL" --hold "$@"'))
    run.wait_for_output("JobHeldUser (they are held: scontrol release ")
    [job] = run.list_jobs(cluster)
    run_client("scontrol", "release", job)
    wait_until((tmp_path / "a.runs").exists, lambda: run.output)
    run_client("scontrol", "requeuehold", job)
    run.wait_for_output(f"job requeued in held state (they were queued again and are held: scontrol release {job})")
    run_client("scontrol", "release", job)
    run.let_go()
    assert run.count_runs("a") == 2


def test_a_node_whose_prolog_fails_is_explained(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.configured("Prolog=/bin/false"):
        run = QueueRun(tmp_path, "a.txt")
        run.wait_for_output("launch failed requeued held (their node could not start them")
    for node in ("c1", "c2"):
        if "DRAIN" in cluster.node_state(node):
            cluster.resume_node(node)
    run_client("scontrol", "release", *run.list_jobs(cluster))
    run.let_go()


def test_a_later_attempt_asks_for_no_more_than_the_partition_allows(cluster: Cluster, short: str, tmp_path: Path) -> None:
    requests = ["first:slurm_partition=short", "first:runtime=60 * attempt", "first:mem_mb=300000 * attempt"]
    run = QueueRun(tmp_path, "a.txt", "--retries", "1", "--set-resources", *requests)
    wait_until((tmp_path / "a.runs").exists, lambda: run.output)
    run_client("scancel", *run.list_jobs(cluster))
    said = run.let_go()
    assert "asks in attempt 2 for 90 minutes instead of 120 and 512000 MB of memory instead of 600000" in said
    assert [(job["TimeLimit"], job["MinMemoryNode"]) for job in run.list_jobs(cluster).values()][-1] == ("01:30:00", "500G")


# What failed


def test_a_job_that_dies_before_its_own_log_shows_slurms(cluster: Cluster, tmp_path: Path) -> None:
    """No interpreter on the nodes; and more memory than it asked for."""
    python = str(Path(sys.executable).resolve())
    for node in ("c1", "c2"):
        cluster.run_on_node(node, "mount", "--bind", "/dev/null", python)
    try:
        said = QueueRun(tmp_path, "a.txt").wait_for_end(ok=False)
    finally:
        for node in ("c1", "c2"):
            cluster.run_on_node(node, "umount", python)
    assert "SLURM status is: 'FAILED'. The end of " in said and "ermission denied" in said
    with cluster.configured("JobAcctGatherParams=OverMemoryKill"):
        said = QueueRun(tmp_path, "a.txt", "--set-resources", "first:mem_mb=20").wait_for_end(ok=False)
    assert "Of memory it asked for 20M and had at most " in said and "exceeded memory limit" in said


# The user's environment and options


def test_the_users_settings_of_clients_do_not_mislead(cluster: Cluster, tmp_path: Path) -> None:
    settings = {"SQUEUE_PARTITION": "gpu", "SQUEUE_FORMAT": "%j", "SQUEUE_USERS": "nobody", "SQUEUE_STATES": "PENDING"}
    settings |= {"SBATCH_ARRAY_INX": "1-3", "SBATCH_WAIT": "1", "SINFO_FORMAT": "%N", "SLURM_TIME_FORMAT": "relative"}
    outer_job = {"SLURM_JOB_ID": "77", "SLURM_MEM_PER_NODE": "7", "SLURM_MEM_PER_CPU": "7", "SLURM_NTASKS_PER_NODE": "9"}
    run = QueueRun(tmp_path, "a.txt", **settings, **outer_job)
    run.let_go()
    assert run.count_runs("a") == 1


def test_job_arrays_are_refused_by_name(cluster: Cluster, tmp_path: Path) -> None:
    said = QueueRun(tmp_path, "--slurm-medmim-array-jobs", "all").wait_for_end(ok=False)
    assert "slurm-medmim-array-jobs (all): this executor submits no job arrays" in said and "Traceback" not in said


def test_a_job_is_found_again_whatever_it_is_called(cluster: Cluster, tmp_path: Path) -> None:
    run = QueueRun(tmp_path, "a.txt")
    wait_until((tmp_path / "a.runs").exists, lambda: run.output)
    [job] = [name for name, known in run.list_jobs(cluster).items() if known["JobState"] == "RUNNING"]
    run_client("scontrol", "update", f"JobId={job}", "JobName=mine", "Comment=nothing")
    run.kill()
    QueueRun(tmp_path, "--unlock").wait_for_end()
    run = QueueRun(tmp_path, "a.txt")
    run.wait_for_output(f"is in the queue as SLURM jobid {job}")
    run.let_go()
    assert run.count_runs("a") == 1


def test_squeue_is_asked_rarely(cluster: Cluster, tmp_path: Path) -> None:
    """Never twice within the shortest time between polls, however many jobs there are."""
    calls = tmp_path / "calls"
    path = replace_client(tmp_path, "squeue", f'date +%s.%N >> "{calls}"; exec "$REAL" "$@"')
    run = QueueRun(tmp_path, interval=3, PATH=path)
    wait_until(lambda: (tmp_path / "a.runs").exists() and (tmp_path / "b.runs").exists(), lambda: run.output)
    wait_until(lambda: len(calls.read_text().split()) > 2, lambda: run.output)
    run.let_go()
    times = [float(time) for time in calls.read_text().split()]
    assert all(later - earlier >= 3 for earlier, later in pairwise(times))

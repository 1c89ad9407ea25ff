"""What SLURM's clients say, and what is made of it. The executor itself: tests/slurm."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from record_made import complete_record

from medmim.common import slurm_client
from medmim.common.slurm_client import PartitionLimits, QueueRow, SlurmJob
from medmim.provenance import job_record
from snakemake_executor_plugin_slurm_medmim import job_states
from snakemake_executor_plugin_slurm_medmim.fingerprints import fingerprint_job, run_name
from snakemake_executor_plugin_slurm_medmim.job_states import JobStates


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> JobStates:
    accounted = {"2": "CANCELLED", "3": "COMPLETED"}
    monkeypatch.setattr(job_states, "query_accounting", lambda jobs: {j: accounted[j.id] for j in jobs if j.id in accounted})
    return JobStates(logging.getLogger("test"))


def update(states: JobStates, **states_by_id: str) -> dict[str, str]:
    """What is made of what squeue says of job 1 and others."""
    rows = [QueueRow(SlurmJob(name.removeprefix("job")), state) for name, state in states_by_id.items()]
    return {job.id: state for job, state in states.update_states([SlurmJob("1")], rows).items()}


def test_a_job_that_squeue_forgot_is_asked_of_sacct_and_one_that_neither_knows_has_ended(states: JobStates) -> None:
    jobs = [SlurmJob(each) for each in ("1", "2", "3", "4")] + [SlurmJob("1", "other")]
    rows = [QueueRow(SlurmJob("1"), "RUNNING"), QueueRow(SlurmJob("9"), "FAILED"), QueueRow(SlurmJob("1", "other"), "PENDING")]
    assert list(states.update_states(jobs, rows).values()) == ["RUNNING", "CANCELLED", "COMPLETED", "UNKNOWN", "PENDING"]


@pytest.mark.parametrize(("state", "final"), [("PREEMPTED", "CANCELLED"), ("NODE_FAIL", "FAILED")])
def test_a_state_that_slurm_leaves_is_final_when_seen_twice(states: JobStates, state: str, final: str) -> None:
    assert update(states, job1=state) == {"1": state}, "SLURM may be about to queue it again"
    assert update(states, job1="PENDING") == {"1": "PENDING"}
    assert update(states, job1=state) == {"1": state}
    assert update(states, job1=state) == {"1": final}


def test_answers_without_news_are_known(states: JobStates) -> None:
    told = [update(states, job1=state) and states.have_changed for state in ("PENDING", "PENDING", "RUNNING", "RUNNING")]
    assert told == [True, False, True, False]


def test_silence_is_told_once_and_its_end_too(states: JobStates, caplog: pytest.LogCaptureFixture) -> None:
    assert [states.controller_answered(answer) for answer in ([], None, None, [], [])] == [True, False, False, True, True]
    assert [r.message for r in caplog.records] == [
        "SLURM does not answer: waiting for it; jobs that run go on",
        "SLURM answers again",
    ]


def test_a_client_that_is_missing_or_fails_has_no_answer() -> None:
    assert slurm_client.query_client(["no-such-program"]) is None
    assert slurm_client.query_client(["false"]) is None
    assert slurm_client.query_client(["echo", '1 | RUNNING|rule_a "b']) == [["1", "RUNNING", 'rule_a "b']]


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Let a client of SLURM's be a script."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_rows_of_several_clusters_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue writes a line before the jobs of a cluster that was named, and a comment may hold anything."""
    job = r'7\037RUNNING\037None\037/a|b\037run\037rule_a | "x"'
    answer(tmp_path, monkeypatch, "squeue", f"""case "$*" in *--clusters=b*) echo "CLUSTER: b";; esac; printf '{job}\\n'""")
    rows = slurm_client.query_queue(["", "b"])
    assert rows is not None and [row.job for row in rows] == [SlurmJob("7"), SlurmJob("7", "b")]
    assert rows[0] == QueueRow(SlurmJob("7"), "RUNNING", "None", "/a|b", "run", 'rule_a | "x"')
    answer(tmp_path, monkeypatch, "squeue", """case "$*" in *--clusters=b*) exit 1;; esac""")
    assert slurm_client.query_queue(["", "b"]) is None and slurm_client.query_queue([""]) == []


def test_the_accounting_database_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(
        tmp_path,
        monkeypatch,
        "sacct",
        "case \"$*\" in *State*) echo '2|CANCELLED by 0'; echo '5|';; *) echo; echo 1500K; echo 2M;; esac",
    )
    assert slurm_client.query_accounting([SlurmJob("2", "b"), SlurmJob("5", "b")]) == {SlurmJob("2", "b"): "CANCELLED"}
    assert slurm_client.query_peak_memory(SlurmJob("2")) == 2
    answer(tmp_path, monkeypatch, "sacct", "echo 16?")
    assert slurm_client.query_peak_memory(SlurmJob("2")) is None
    answer(tmp_path, monkeypatch, "sacct", "exit 1")
    assert slurm_client.query_accounting([SlurmJob("2")]) == {} and slurm_client.query_peak_memory(SlurmJob("2")) is None


@pytest.mark.parametrize(
    ("lines", "limits"),
    [
        (["short|1:30:00|64000", "short|1:30:00|512000"], (90, 512000)),
        (["cpu|infinite|1000+", "short|1:30:00|500"], (None, 1000)),
        ([], (None, None)),
    ],
)
def test_limits_of_partitions_are_the_widest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], limits: tuple[int | None, int | None]
) -> None:
    answer(tmp_path, monkeypatch, "sinfo", "\n".join(["CLUSTER: b", *lines]).join(["cat << 'END'\n", "\nEND"]))
    assert slurm_client.query_partition_limits("cpu,short") == PartitionLimits(*limits)


def test_what_misleads_clients_is_taken_away_and_the_rest_stays() -> None:
    kept = {"PATH": "/bin", "SLURM_CONF": "/x", "SBATCH_ACCOUNT": "me", "SBATCH_QOS": "q", "MY_SLURM_ID": "1"}
    misleading = {"SLURM_JOB_ID": "1", "SQUEUE_FORMAT": "%i", "SLURM_CLUSTERS": "a", "SBATCH_CLUSTERS": "b", "SBATCH_WAIT": "1"}
    environment = kept | misleading | {"SBATCH_ARRAY_INX": "1-3", "SRUN_CONTAINER": "x"}
    assert slurm_client.clean_environment(environment) == "b" and environment == kept


def test_runs_have_names_of_their_own(tmp_path: Path) -> None:
    assert run_name(tmp_path / "demo").startswith("demo-")
    assert run_name(tmp_path / "demo") == run_name(tmp_path / "x/../demo") != run_name(tmp_path / "other/demo")


def job(command: str, read: list[Path], made: list[Path]) -> SimpleNamespace:
    return SimpleNamespace(name="rule", shellcmd=command, input=read, output=made, is_group=lambda: False)


def test_the_fingerprint_is_of_commands_and_content(tmp_path: Path) -> None:
    artifact, own = tmp_path / "a.parquet", tmp_path / "own.csv"
    artifact.write_text("never read: its sidecar says what it is")
    own.write_text("a user's file")
    record = complete_record(outputs={"table": {"path": str(artifact), "bytes": 1, "sha256": "1" * 64}})
    job_record.write_record(job_record.sidecar_path(artifact), record)
    first = fingerprint_job(job("make", [artifact, own], []))
    artifact.write_text("touched")
    assert fingerprint_job(job("make", [own, artifact], [])) == first
    assert fingerprint_job(job("make --other", [artifact, own], [])) != first
    own.write_text("another")
    changed = fingerprint_job(job("make", [artifact, own], []))
    assert changed != first
    record["outputs"]["table"]["sha256"] = "2" * 64
    job_record.write_record(job_record.sidecar_path(artifact), record)
    assert fingerprint_job(job("make", [artifact, own], [])) not in (first, changed)


def test_of_a_group_what_its_jobs_hand_each_other_is_not_read(tmp_path: Path) -> None:
    between = tmp_path / "not there yet.parquet"
    jobs = [job("first", [], [between]), job("second", [between], [tmp_path / "last"])]
    group = SimpleNamespace(jobs=jobs, is_group=lambda: True)
    assert fingerprint_job(group) == fingerprint_job(SimpleNamespace(jobs=jobs[::-1], is_group=lambda: True))

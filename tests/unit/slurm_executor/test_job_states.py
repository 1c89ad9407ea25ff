"""What SLURM's clients say, and what is made of it. The executor itself: tests/slurm."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from record_made import complete_record

from medmim.common import slurm_client
from medmim.provenance import job_record
from snakemake_executor_plugin_slurm_medmim import job_states
from snakemake_executor_plugin_slurm_medmim.fingerprints import fingerprint_job, run_name
from snakemake_executor_plugin_slurm_medmim.job_states import JobStates


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> JobStates:
    monkeypatch.setattr(job_states, "query_accounting", lambda ids: [row for row in ACCOUNTED if row[0] in ids])
    return JobStates(logging.getLogger("test"))


ACCOUNTED = [["2", "CANCELLED by 0"], ["3", "COMPLETED"], ["5", ""]]


def test_a_job_that_squeue_forgot_is_asked_of_sacct_and_one_that_neither_knows_has_ended(states: JobStates) -> None:
    assert states.update_states(["1", "2", "3", "4", "5"], [["1", "RUNNING", "rule_a"], ["9", "FAILED", "another's"]]) == {
        "1": "RUNNING", "2": "CANCELLED", "3": "COMPLETED", "4": "UNKNOWN", "5": "UNKNOWN",
    }  # fmt: skip


@pytest.mark.parametrize(("state", "final"), [("PREEMPTED", "CANCELLED"), ("NODE_FAIL", "FAILED")])
def test_a_state_that_slurm_leaves_is_final_when_seen_twice(states: JobStates, state: str, final: str) -> None:
    assert states.update_states(["1"], [["1", state, ""]]) == {"1": state}, "SLURM may be about to queue it again"
    assert states.update_states(["1"], [["1", "PENDING", ""]]) == {"1": "PENDING"}
    assert states.update_states(["1"], [["1", state, ""]]) == {"1": state}
    assert states.update_states(["1"], [["1", state, ""]]) == {"1": final}


def test_answers_without_news_are_counted(states: JobStates) -> None:
    told = [
        states.update_states(["1"], [["1", state, ""]]) and states.unchanged_polls
        for state in ("PENDING", "PENDING", "PENDING", "RUNNING", "RUNNING")
    ]
    assert told == [0, 1, 2, 0, 1]


def test_silence_is_told_once_and_its_end_too(states: JobStates, caplog: pytest.LogCaptureFixture) -> None:
    assert [states.controller_answered(answer) for answer in ([], None, None, [], [])] == [True, False, False, True, True]
    assert [r.message for r in caplog.records] == [
        "SLURM does not answer: waiting for it; jobs that run go on",
        "SLURM answers again",
    ]


def test_a_client_that_is_missing_or_fails_has_no_answer() -> None:
    assert slurm_client.query_client(["no-such-program"]) is None
    assert slurm_client.query_client(["false"]) is None
    assert slurm_client.query_client(["echo", "1 | RUNNING|rule_a b"]) == [["1", "RUNNING", "rule_a b"]]


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

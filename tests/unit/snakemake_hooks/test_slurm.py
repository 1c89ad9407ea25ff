"""What SLURM's clients say, and what is made of it. The executor itself: tests/slurm."""

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from medmim.provenance import job_record
from medmim.snakemake_hooks import slurm
from medmim.snakemake_hooks.slurm import States, fingerprint, run_name


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> States:
    monkeypatch.setattr(slurm, "accounted", lambda ids: [row for row in ACCOUNTED if row[0] in ids])
    return States(logging.getLogger("test"))


ACCOUNTED = [["2", "CANCELLED by 0"], ["3", "COMPLETED"], ["5", ""]]


def test_a_job_that_squeue_forgot_is_asked_of_sacct_and_one_that_neither_knows_has_ended(states: States) -> None:
    assert states.of(["1", "2", "3", "4", "5"], [["1", "RUNNING", "rule_a"], ["9", "FAILED", "another's"]]) == {
        "1": "RUNNING", "2": "CANCELLED", "3": "COMPLETED", "4": "UNKNOWN", "5": "UNKNOWN",
    }  # fmt: skip


@pytest.mark.parametrize(("state", "final"), [("PREEMPTED", "CANCELLED"), ("NODE_FAIL", "FAILED")])
def test_a_state_that_slurm_leaves_is_final_when_seen_twice(states: States, state: str, final: str) -> None:
    assert states.of(["1"], [["1", state, ""]]) == {"1": state}, "SLURM may be about to queue it again"
    assert states.of(["1"], [["1", "PENDING", ""]]) == {"1": "PENDING"}
    assert states.of(["1"], [["1", state, ""]]) == {"1": state}
    assert states.of(["1"], [["1", state, ""]]) == {"1": final}


def test_answers_without_news_are_counted(states: States) -> None:
    told = [
        states.of(["1"], [["1", state, ""]]) and states.calm for state in ("PENDING", "PENDING", "PENDING", "RUNNING", "RUNNING")
    ]
    assert told == [0, 1, 2, 0, 1]


def test_silence_is_told_once_and_its_end_too(states: States, caplog: pytest.LogCaptureFixture) -> None:
    assert [states.heard(answer) for answer in ([], None, None, [], [])] == [True, False, False, True, True]
    assert [r.message for r in caplog.records] == [
        "SLURM does not answer: waiting for it; jobs that run go on",
        "SLURM answers again",
    ]


def test_a_client_that_is_missing_or_fails_has_no_answer() -> None:
    assert slurm.ask(["no-such-program"]) is None
    assert slurm.ask(["false"]) is None
    assert slurm.ask(["echo", "1 | RUNNING|rule_a b"]) == [["1", "RUNNING", "rule_a b"]]


def test_runs_have_names_of_their_own(tmp_path: Path) -> None:
    assert run_name(tmp_path / "demo").startswith("demo-")
    assert run_name(tmp_path / "demo") == run_name(tmp_path / "x/../demo") != run_name(tmp_path / "other/demo")


def job(command: str, read: list[Path], made: list[Path]) -> SimpleNamespace:
    return SimpleNamespace(name="rule", shellcmd=command, input=read, output=made, is_group=lambda: False)


def test_the_fingerprint_is_of_commands_and_content(tmp_path: Path) -> None:
    artifact, own = tmp_path / "a.parquet", tmp_path / "own.csv"
    artifact.write_text("never read: its sidecar says what it is")
    own.write_text("a user's file")
    record = {"outputs": {"table": {"path": str(artifact), "sha256": "1" * 64}}}
    job_record.write(job_record.sidecar(artifact), record)
    first = fingerprint(job("make", [artifact, own], []))
    artifact.write_text("touched")
    assert fingerprint(job("make", [own, artifact], [])) == first
    assert fingerprint(job("make --other", [artifact, own], [])) != first
    own.write_text("another")
    changed = fingerprint(job("make", [artifact, own], []))
    assert changed != first
    record["outputs"]["table"]["sha256"] = "2" * 64
    job_record.write(job_record.sidecar(artifact), record)
    assert fingerprint(job("make", [artifact, own], [])) not in (first, changed)


def test_of_a_group_what_its_jobs_hand_each_other_is_not_read(tmp_path: Path) -> None:
    between = tmp_path / "not there yet.parquet"
    jobs = [job("first", [], [between]), job("second", [between], [tmp_path / "last"])]
    group = SimpleNamespace(jobs=jobs, is_group=lambda: True)
    assert fingerprint(group) == fingerprint(SimpleNamespace(jobs=jobs[::-1], is_group=lambda: True))


def test_sigterm_while_snakemake_is_at_its_books(tmp_path: Path) -> None:
    """It ends after the job, as at other times; without our mending it waits for itself, for ever."""
    (tmp_path / "Snakefile").write_text("""
import os
import signal
from pathlib import Path
from snakemake.persistence.file import FilePersistence
from medmim import slurm

slurm.install(workflow, Path("results"))
finished = FilePersistence.finished

def told_to_stop(*arguments, **options):
    assert workflow.scheduler._lock.locked()
    os.kill(os.getpid(), signal.SIGTERM)
    return finished(*arguments, **options)

FilePersistence.finished = told_to_stop

rule all:
    input: "second"
rule first:
    output: "first"
    shell: "touch {output}"
rule second:
    input: "first"
    output: "second"
    shell: "touch {output}"
""")
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 1 and "Will exit after finishing currently running jobs" in run.stderr, run.stderr
    assert (tmp_path / "first").exists() and not (tmp_path / "second").exists()

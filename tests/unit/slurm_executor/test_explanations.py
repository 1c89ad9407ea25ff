"""What is said of jobs that wait, and of jobs that failed; what is asked for again, and what jobs leave when they end."""

import logging
import subprocess
from pathlib import Path

import pytest

from medmim.common.slurm_client import PartitionLimits, QueueRow, SlurmJob
from snakemake_executor_plugin_slurm_medmim import failures
from snakemake_executor_plugin_slurm_medmim.end_notes import EndNotes
from snakemake_executor_plugin_slurm_medmim.failures import explain_failure
from snakemake_executor_plugin_slurm_medmim.pending_reasons import PASSING_SECONDS, PendingReasons, explain_reason
from snakemake_executor_plugin_slurm_medmim.requests import clamp_request


def pending(job: str, reason: str, state: str = "PENDING") -> QueueRow:
    return QueueRow(SlurmJob(job), state, reason)


def test_a_reason_is_said_once_for_each_job(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reasons = PendingReasons(logging.getLogger("test"))
    rows = [pending(str(n), "JobHeldUser") for n in range(1, 6)] + [pending("7", "JobHeldUser", "RUNNING")]
    reasons.say_reasons(rows, 0)
    reasons.say_reasons(rows, 1)
    assert caplog.messages == [
        "SLURM jobs 1, 2, 3 and 2 more wait in the queue: JobHeldUser (they are held: scontrol release 1 2 3 4 5)"
    ]
    reasons.say_reasons([pending("1", "PartitionTimeLimit")], 2)
    assert caplog.messages[1].startswith(
        "SLURM job 1 waits in the queue: PartitionTimeLimit (they can never start: their time is"
    )


def test_what_passes_by_itself_is_said_where_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reasons = PendingReasons(logging.getLogger("test"))
    for now in (0, PASSING_SECONDS - 1, PASSING_SECONDS, PASSING_SECONDS + 1):
        reasons.say_reasons([pending("1", "Priority")], now)
    assert caplog.messages == ["SLURM job 1 waits in the queue: Priority (jobs of others come first)"]


def test_a_reason_that_is_not_known_is_said_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    PendingReasons(logging.getLogger("test")).say_reasons([pending("1", "NewReason")], 0)
    assert caplog.messages == ["SLURM job 1 waits in the queue: NewReason"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("QOSMaxWallDurationPerJobLimit", "can never start: their time"),
        ("AssocMaxWallDurationPerJobLimit", "can never start: their time"),
        ("AssocMaxCpuPerJobLimit", "can never start: they ask for more"),
        ("QOSMaxJobsPerUserLimit", "when other jobs end"),
        ("AssocGrpCpuLimit", "when other jobs end"),
        ("launch failed requeued held", "scontrol release"),
        ("ReqNodeNotAvail, UnavailableNodes:c1", "down, drained or reserved"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "come back"),
        ("JobHeldAdmin", "ask your site"),
    ],
)
def test_reasons_as_slurm_writes_them_have_a_remedy(reason: str, words: str) -> None:
    assert words in explain_reason(reason)


def test_requests_stay_within_limits() -> None:
    command = ["sbatch", "-t", "120", "--mem", "2000", "-p", "short"]
    clamped, changes = clamp_request(command, PartitionLimits(90, None))
    assert clamped == ["sbatch", "-t", "90", "--mem", "2000", "-p", "short"] and changes == ["90 minutes instead of 120"]
    assert clamp_request(command, PartitionLimits(120, 1999))[1] == ["1999 MB of memory instead of 2000"]
    assert clamp_request(command, PartitionLimits(None, None)) == (command, [])
    assert clamp_request(["sbatch", "-t", "1-00"], PartitionLimits(90, 5)) == (["sbatch", "-t", "1-00"], [])


def test_the_end_of_slurms_log_is_shown_without_what_ends_every_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "query_requested_memory", lambda job: "50M")
    monkeypatch.setattr(failures, "query_peak_memory", lambda job: None)
    log = tmp_path / "7.log"
    assert "wrote no log" in explain_failure(SlurmJob("7"), "FAILED", log)
    log.write_text("first\n" * 20 + "slurm_script: 4: /no/python: not found\n\nShutting down, this might take some time.\n")
    words = explain_failure(SlurmJob("7"), "FAILED", log)
    assert words.endswith("/no/python: not found") and words.count("first") == failures.MAX_LINES - 1 and "memory" not in words
    log.write_text("slurmstepd-c1: error: StepId=5.batch exceeded memory limit (220286976 > 52428800), being killed\n")
    assert "it asked for 50M and had at most 210M" in explain_failure(SlurmJob("7"), "FAILED", log)
    assert "nothing recorded how much it had" in explain_failure(SlurmJob("7"), "OUT_OF_MEMORY", tmp_path / "none")


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("sh -c 'exit 3'", 3)])
def test_a_job_leaves_the_status_of_its_command(tmp_path: Path, command: str, status: int) -> None:
    folder = tmp_path / "it's $(touch x)"
    folder.mkdir()
    notes = EndNotes(folder)
    assert not notes.has_new() and notes.read_status(SlurmJob("7"), "f") is None
    script = notes.add_to_script(command, "f")
    assert subprocess.run(["sh"], input=script, text=True, env={"SLURM_JOB_ID": "7"}, check=False).returncode == status
    assert notes.has_new() and not notes.has_new() and notes.read_status(SlurmJob("7"), "f") == status
    notes.remove(SlurmJob("7"), "f")
    notes.remove(SlurmJob("7"), "f")
    assert list(folder.iterdir()) == []

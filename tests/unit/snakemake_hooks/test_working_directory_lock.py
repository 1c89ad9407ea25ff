"""Whose lock stops a Snakemake, and whose does not: with real processes, which are killed. In SLURM jobs: tests/slurm."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from medmim.snakemake_hooks.working_directory_lock import LockOwner, find_ends, owner_record_path

LIMIT_SECONDS = 300
DESCRIBE = """
import json
import sys
from dataclasses import asdict
from medmim.snakemake_hooks.working_directory_lock import LockOwner

print(json.dumps(asdict(LockOwner.from_current_process())), flush=True)
sys.stdin.read()
"""
SNAKEFILE = """
from medmim.snakemake_hooks.patches import install_patches

install_patches()

rule wait:
    output: "made"
    shell: "echo run >> runs; echo > begun; cat go > told; mv told {output}"
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A process that says who it is and then waits."""
    with subprocess.Popen([sys.executable, "-c", DESCRIBE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def owner(process: subprocess.Popen[str]) -> LockOwner:
    assert process.stdout is not None
    return LockOwner(**json.loads(process.stdout.readline()))


@pytest.fixture
def reader() -> LockOwner:
    return LockOwner.from_current_process()


def test_a_process_that_runs_or_is_halted_is_there(process: subprocess.Popen[str], owner: LockOwner, reader: LockOwner) -> None:
    assert owner.pid == process.pid and owner.find_end(reader) is None and reader.find_end(reader) is None
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert owner.find_end(reader) is None


def test_a_process_that_was_killed_is_gone(process: subprocess.Popen[str], owner: LockOwner, reader: LockOwner) -> None:
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner.find_end(reader) == "that process has ended", "nobody has asked yet how it ended"
    process.wait()
    assert owner.find_end(reader) == "that process has ended"


def test_a_process_id_that_was_given_again_is_another_process(owner: LockOwner, reader: LockOwner) -> None:
    assert replace(owner, start_ticks=owner.start_ticks - 1).find_end(reader) == "that process has ended"


def test_a_machine_that_was_started_anew_runs_nothing_of_before(owner: LockOwner, reader: LockOwner) -> None:
    before = replace(owner, machine_id="a", boot_id="before")
    assert before.find_end(replace(reader, machine_id="a")) == "that machine was started anew"
    assert before.find_end(replace(reader, machine_id="b")) is None, "another machine of that name"
    assert replace(before, machine_id="").find_end(replace(reader, machine_id="")) is None


@pytest.mark.parametrize("field", ["host", "pid_namespace"])
def test_of_another_place_nothing_is_known(
    process: subprocess.Popen[str], owner: LockOwner, reader: LockOwner, field: str
) -> None:
    """Another host, or a container on this one, whose process ids are not ours."""
    process.kill()
    process.wait()
    assert replace(owner, **{field: "other"}).find_end(reader) is None


def in_slurm_job(owner: LockOwner, host: str = "c1", job: str = "7", restarts: int = 0, cluster: str = "test") -> LockOwner:
    return replace(owner, host=host, slurm_job=job, slurm_cluster=cluster, slurm_restarts=restarts)


def test_a_job_that_was_queued_again_knows_its_own_lock(reader: LockOwner) -> None:
    owner = in_slurm_job(reader)
    assert owner.find_end(in_slurm_job(reader, "c2", restarts=1)) == "SLURM has queued that job again"
    assert owner.find_end(in_slurm_job(reader, "c2")) is None, "another node of the same job, at the same time"


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ("7|RUNNING", None),
        ("7|PENDING", None),
        ("7|SUSPENDED", None),
        ("7|A_STATE_OF_TOMORROW", None),
        ("7|CANCELLED", "that SLURM job has ended"),
        ("8|RUNNING", "that SLURM job has ended"),
        (None, None),
    ],
)
def test_of_another_slurm_job_slurm_knows(
    reader: LockOwner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None, end: str | None
) -> None:
    """The client's answer; None where it has none, as without a controller."""
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\n" + (f"echo '{answer}'" if answer else "exit 1"))
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert in_slurm_job(reader).find_end(in_slurm_job(reader, "c2", "8")) == end
    assert in_slurm_job(reader).find_end(in_slurm_job(reader, "c2", "8", cluster="other")) is None
    assert replace(in_slurm_job(reader), uid=-1).find_end(in_slurm_job(reader, "c2", "8")) is None


def test_one_owner_in_doubt_keeps_all_locks(tmp_path: Path, reader: LockOwner) -> None:
    gone, other = replace(reader, start_ticks=0), replace(reader, host="other")
    assert find_ends(tmp_path, reader) is None
    for name, owner in (("0.input.lock", gone), ("0.output.lock", gone)):
        (tmp_path / name).touch()
        owner.write_record(owner_record_path(tmp_path / name))
    assert find_ends(tmp_path, reader) == {gone: "that process has ended"}
    (tmp_path / "1.output.lock").touch()
    assert find_ends(tmp_path, reader) is None, "a lock without a record"
    other.write_record(owner_record_path(tmp_path / "1.output.lock"))
    assert find_ends(tmp_path, reader) is None
    owner_record_path(tmp_path / "1.output.lock").write_text(json.dumps({"format_version": 2, "owner": asdict(gone)}))
    assert find_ends(tmp_path, reader) is None, "a record of another version"


class Workflow:
    """Snakemakes in one folder with one job, which begins, and ends when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        (folder / "Snakefile").write_text(SNAKEFILE)
        for name in ("begun", "go"):
            os.mkfifo(folder / name)

    def start(self, *options: str) -> subprocess.Popen[str]:
        self.started.append(subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1", *options], cwd=self.folder, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ))  # fmt: skip
        return self.started[-1]

    def wait_for_begin(self) -> None:
        (self.folder / "begun").read_text()

    def release_job(self) -> None:
        (self.folder / "go").write_text("made")

    def end(self, run: subprocess.Popen[str]) -> str:
        return run.communicate(timeout=LIMIT_SECONDS)[0]

    def leave_lock(self) -> subprocess.Popen[str]:
        """A Snakemake that took the lock and was killed."""
        run = self.start()
        self.wait_for_begin()
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert list((self.folder / ".snakemake/locks").glob("*.lock"))
        return run


@pytest.fixture
def workflow(tmp_path: Path) -> Iterator[Workflow]:
    workflow = Workflow(tmp_path)
    yield workflow
    for run in workflow.started:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def test_the_lock_of_a_killed_snakemake_is_released(workflow: Workflow) -> None:
    killed = workflow.leave_lock()
    run = workflow.start()
    workflow.wait_for_begin()
    workflow.release_job()
    said = workflow.end(run)
    assert run.returncode == 0 and (workflow.folder / "made").read_text() == "made", said
    assert "The lock of " in said and f"(process {killed.pid}, since " in said and "is released: that process has ended" in said
    assert not (workflow.folder / ".snakemake/locks").exists()


def test_a_snakemake_that_runs_keeps_its_lock_and_is_named(workflow: Workflow) -> None:
    first = workflow.start()
    workflow.wait_for_begin()
    second = workflow.start()
    said = workflow.end(second)
    assert second.returncode == 1 and "Directory cannot be locked" in said
    assert f"It is held by {LockOwner.from_current_process().user} on " in said and f"(process {first.pid}, since " in said
    dry_run = workflow.start("-n")
    assert "Another Snakemake instance is running" in workflow.end(dry_run) and dry_run.returncode == 0
    workflow.release_job()
    workflow.end(first)
    assert first.returncode == 0


def test_of_two_that_find_a_lock_left_behind_one_goes_on(workflow: Workflow) -> None:
    workflow.leave_lock()
    (workflow.folder / "runs").unlink()
    runs = [workflow.start() for _ in range(2)]
    workflow.wait_for_begin()
    [lock] = (workflow.folder / ".snakemake/locks").glob("*.output.lock")
    holder = LockOwner.from_record(owner_record_path(lock))
    assert holder is not None
    loser, winner = sorted(runs, key=lambda run: run.pid == holder.pid)
    said = workflow.end(loser)
    assert loser.returncode == 1 and "Directory cannot be locked" in said and f"(process {winner.pid}, " in said
    workflow.release_job()
    workflow.end(winner)
    assert winner.returncode == 0 and (workflow.folder / "runs").read_text() == "run\n"


@pytest.mark.parametrize("options", [("--unlock",), ("--nolock", "-n"), ("-n",)])
def test_options_that_are_about_locks_are_as_before(workflow: Workflow, options: tuple[str, ...]) -> None:
    workflow.leave_lock()
    run = workflow.start(*options)
    said = workflow.end(run)
    assert run.returncode == 0 and "is released" not in said, said
    assert (workflow.folder / ".snakemake/locks").exists() is ("--unlock" not in options)


def test_a_lock_without_a_record_is_snakemakes_alone(workflow: Workflow) -> None:
    workflow.leave_lock()
    for record in (workflow.folder / ".snakemake/locks").glob("*.json"):
        record.unlink()
    run = workflow.start()
    assert "held by a Snakemake that is not recorded" in workflow.end(run) and run.returncode == 1

"""Who holds the lock of a working directory, and whether that Snakemake is certainly gone.

Snakemake's locks do not say whose they are, so one that was killed stops the next. Beside each lock a record says which process
took it. Where there is any doubt, as with a process of another machine outside SLURM, a lock holds.
"""

import fcntl
import getpass
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from medmim.common.files import write_atomically
from medmim.common.slurm_client import query_client

RECORD_SUFFIX = ".owner.json"
RECORD_VERSION = 1
"""Version of a record's format: to be raised with any change of its fields. Locks with another version hold."""
TAKE_OVER_NAME = "locks.flock"
ENDED_STATES = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT",
}  # fmt: skip
"""States of SLURM jobs of which no process is left."""
COMPLETING_LIMIT_SECONDS = 300
"""Seconds to wait for the processes of a cancelled job to end."""
COMPLETING_POLL_SECONDS = 2


@dataclass(frozen=True)
class LockOwner:
    """A process that holds, or wants, a lock."""

    user: str
    uid: int
    host: str
    machine_id: str
    boot_id: str
    pid_namespace: str
    """The namespace that the process id is of: containers on one machine have their own."""
    pid: int
    start_ticks: int
    """When the process started, in clock ticks since the machine did."""
    since: str
    """UTC, ISO 8601."""
    slurm_job: str | None
    slurm_cluster: str | None
    slurm_restarts: int

    @classmethod
    def from_current_process(cls) -> "LockOwner":
        """This process. To be called before Snakemake's executor takes SLURM's variables away."""
        _, start_ticks = _read_process_state(os.getpid()) or ("R", 0)
        return cls(
            user=_find_user_name(), uid=os.getuid(), host=platform.node(), machine_id=_read_text("/etc/machine-id"),
            boot_id=_read_text("/proc/sys/kernel/random/boot_id"), pid_namespace=_read_pid_namespace(), pid=os.getpid(),
            start_ticks=start_ticks, since=datetime.now(UTC).isoformat(timespec="seconds"),
            slurm_job=os.environ.get("SLURM_JOB_ID"), slurm_cluster=os.environ.get("SLURM_CLUSTER_NAME"),
            slurm_restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        )  # fmt: skip

    @classmethod
    def from_record(cls, path: Path) -> "LockOwner | None":
        """As a record has it; None where there is none that can be read."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return cls(**record["owner"]) if record["format_version"] == RECORD_VERSION else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_record(self, path: Path) -> None:
        """Write the record that `from_record` reads."""
        with write_atomically(path) as temporary:
            record = {"format_version": RECORD_VERSION, "owner": asdict(self)}
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        job = f" of SLURM job {self.slurm_job}" if self.slurm_job else ""
        return f"{self.user} on {self.host} (process {self.pid}{job}, since {self.since})"

    def find_end(self, reader: "LockOwner") -> str | None:
        """Why this process is certainly gone, as another sees it; None where it is there, or may be."""
        places = [(owner.host, owner.boot_id, owner.pid_namespace) for owner in (self, reader)]
        if self.boot_id and places[0] == places[1]:
            return None if _is_running(self.pid, self.start_ticks) else "that process has ended"
        machines = [(owner.host, owner.machine_id) for owner in (self, reader)]
        if self.machine_id and self.boot_id and reader.boot_id != self.boot_id and machines[0] == machines[1]:
            return "that machine was started anew"
        if self.slurm_job is None:
            return None
        jobs = [(owner.slurm_job, owner.slurm_cluster) for owner in (self, reader)]
        if jobs[0] == jobs[1]:
            return "SLURM has queued that job again" if self.slurm_restarts < reader.slurm_restarts else None
        if self.uid != reader.uid or self.slurm_cluster != (reader.slurm_cluster or _query_cluster_name()):
            return None  # Jobs of others may be hidden, and another cluster's are not known.
        return "that SLURM job has ended" if _has_slurm_job_ended(self.slurm_job) else None


def owner_record_path(lock_file: Path) -> Path:
    """Where the record of a lock's owner lies: in Snakemake's folder of locks, with which it goes."""
    return lock_file.with_name(lock_file.name + RECORD_SUFFIX)


def find_owners(folder: Path) -> list[LockOwner | None]:
    """The owner of each lock in Snakemake's folder of locks, None where it is not recorded."""
    owners = [LockOwner.from_record(owner_record_path(path)) for path in sorted(folder.glob("*.lock"))]
    return list(dict.fromkeys(owners))


def find_ends(folder: Path, reader: LockOwner) -> dict[LockOwner, str] | None:
    """Why each owner of locks is certainly gone; None unless all are."""
    ends: dict[LockOwner, str] = {}
    for owner in find_owners(folder):
        if owner is None or (end := owner.find_end(reader)) is None:
            return None
        ends[owner] = end
    return ends or None


def announce_locks(folder: Path, owner: LockOwner) -> None:
    """Record whose the next locks are, before Snakemake makes them: one that is killed in between leaves none without."""
    for kind in ("input", "output"):
        paths = (folder / f"{number}.{kind}.lock" for number in count())
        owner.write_record(owner_record_path(next(path for path in paths if not path.exists())))


def remove_locks(folder: Path) -> None:
    """Remove all locks, as Snakemake does when it ends."""
    shutil.rmtree(folder)
    folder.mkdir()


@contextmanager
def exclude_others(path: Path) -> Iterator[bool]:
    """Let one process at a time look at the locks and take them; False where the file system has no means for that."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # another user's, who does not share it
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _find_user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return str(os.getuid())


def _read_pid_namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _read_process_state(pid: int) -> tuple[str, int] | None:
    """State of a process, and when it started in clock ticks since the machine did; None where /proc does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may hold anything
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _is_running(pid: int, start_ticks: int) -> bool:
    """Whether a process runs, or may: another user's may be hidden."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    process = _read_process_state(pid)
    return process is None or (process[0] not in "ZX" and process[1] == start_ticks)


def _has_slurm_job_ended(job: str) -> bool:
    """Whether SLURM says that a job of this user has ended; a job that it is just ending is waited for."""
    end = time.monotonic() + COMPLETING_LIMIT_SECONDS
    while True:
        rows = query_client(["squeue", "--me", "--all", "--noheader", "--states=all", "--format=%A|%T"])
        if rows is None:
            return False
        state = dict(rows).get(job, "COMPLETED")  # the controller has forgotten it
        if state != "COMPLETING" or time.monotonic() > end:
            return state in ENDED_STATES
        time.sleep(COMPLETING_POLL_SECONDS)


def _query_cluster_name() -> str | None:
    rows = query_client(["scontrol", "show", "config"]) or []
    settings = dict(row[0].split("=", 1) for row in rows if "=" in row[0])
    return next((value.strip() for name, value in settings.items() if name.strip() == "ClusterName"), None)

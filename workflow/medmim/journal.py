"""What each run of a program took: a line as it starts and one as it ends, in `<rule>.<wildcards>.runs.jsonl` beside its log.

start   run (its id), program, at (UTC, ISO 8601), host, node, processes, threads and gpus (asked for, each times processes),
        slurm (None outside; else `id` and, if SLURM answered, what `_told` reads)
end     run, at, outcome (done, restored: from the cache, failed, stopped: by a signal, superseded: another run of the job began
        later), cpu_seconds since its start and peak memory_mb (MiB), both of the first of its
        processes and its children

A run that was killed has no end. Nothing here is an artifact and nothing here may fail a job: what can't be written is not.
"""

import json
import os
import platform
import re
import resource
import subprocess
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SUFFIX = ".runs.jsonl"
PATIENCE = 10
"""Seconds to wait for SLURM's answer: its clients block while its controller is away."""
MIB = {"": 2**-20, "K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}
"""MiB in SLURM's units of memory."""


class Journal:
    """The lines of one run; none without a log to write them beside. `workers`: processes it may start to share its work."""

    def __init__(self, log: Path | None, workers: int | None = None) -> None:
        self.file = None if log is None else log.with_name(log.name.removesuffix(".log") + SUFFIX)
        self.workers = workers or 1
        self._run = uuid.uuid4().hex
        self._child_kb: int | None = None
        self._before = 0.0

    def start(self, program: str, cfg: Any, threads: int | None) -> None:
        """Write the first line. `threads` as an option says; else the config part may, as of GPUs."""
        if self.file is None:
            return
        self._before = _cpu_seconds()
        job = os.environ.get("SLURM_JOB_ID")
        asked = cfg if isinstance(cfg, dict) else {}
        asked = asked.get("tuning") or asked
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        self._write(
            event="start",
            program=program,
            host=platform.node(),
            node=os.environ.get("SLURMD_NODENAME"),
            processes=processes,
            threads=(threads or asked.get("threads") or 1) * processes,
            gpus=asked.get("gpus") or 0,
            slurm=allocation(job) if job else None,
        )

    def worked(self) -> None:
        """Say that the work is over: a process started later counts with this one's memory, as it is a copy of it at first."""
        self._child_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss

    def end(self, outcome: str) -> None:
        """Write the last line."""
        if self.file is None:
            return
        own_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if self._child_kb is None:
            self.worked()
        child_kb = self._child_kb or 0
        together = own_kb + self.workers * child_kb if self.workers > 1 else max(own_kb, child_kb)
        self._write(
            event="end",
            outcome=outcome,
            cpu_seconds=round(_cpu_seconds() - self._before, 2),
            memory_mb=round(together / 1024, 1),
        )

    def _write(self, event: str, **told: object) -> None:
        """Append in one go: what several write at a time stays lines."""
        assert self.file is not None
        line = {"event": event, "run": self._run, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **told}
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                size = os.fstat(file).st_size
                torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # by a full disk, or a node that was lost
                os.write(file, b"\n" * torn + json.dumps(line).encode() + b"\n")
            finally:
                os.close(file)


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in spent)


def slurm(*command: str) -> str:
    """What a client of SLURM's prints, its times being UTC; nothing where it is not there, fails, or does not answer in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,  # the script that runs us may come from there
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
            env=os.environ | {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"},
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return done.stdout


def utc(said: str) -> str | None:
    """A time in such an answer as all others here are written; None for Unknown and the like."""
    try:
        return datetime.fromisoformat(said).replace(tzinfo=UTC).isoformat(timespec="milliseconds")
    except ValueError:
        return None


def allocation(job: str) -> dict[str, Any]:
    """What SLURM says of one of its jobs; just its id where there is no answer."""
    try:
        return {"id": job, **_told(slurm("scontrol", "--oneliner", "--details", "show", "job", job), job)}
    except (KeyError, ValueError):
        return {"id": job}


def _told(text: str, job: str) -> dict[str, Any]:
    """Read a job's line, of which an array has one for each task. Raises KeyError or ValueError."""
    line = next((line for line in text.splitlines() if line.startswith(f"JobId={job} ")), "")
    told = dict(reversed(re.findall(r"(?:^|\s)([\w/:]+)=(\S*)", line)))  # reversed: what a comment says does not count
    given = dict(re.findall(r"([\w/]+)=([^,]*)", told.get("AllocTRES") or told["TRES"]))
    gpus = re.findall(r"(?:^|,)gpu(?::[^,:(]+)*:(\d+)", told.get("JOB_GRES", ""))  # TRES has no GPUs without a database
    nodes = int(told["NumNodes"].split("-")[0])
    return {
        "restarts": int(told["Restarts"]),
        "submitted": utc(told["SubmitTime"]),
        "started": utc(told["StartTime"]),
        "limit_seconds": seconds(told["TimeLimit"]),
        "partition": told["Partition"],
        "nodes": nodes,
        "cpus": int(told["NumCPUs"].split("-")[0]),
        "memory_mb": round(mebibytes(given["mem"]) / nodes) if "mem" in given else None,
        "gpus": int(given["gres/gpu"]) if "gres/gpu" in given else sum(map(int, gpus)),
    }


def seconds(said: str) -> int | None:
    """SLURM's durations: 30:00, 01:30:00, 2-00:00:00; None for UNLIMITED and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?", said)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def mebibytes(said: str) -> float:
    """SLURM's memory sizes: 500M, 15.5G. Raises ValueError."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)", said)
    if found is None:
        raise ValueError(f"not a size: {said!r}")
    return float(found[1]) * MIB[found[2]]

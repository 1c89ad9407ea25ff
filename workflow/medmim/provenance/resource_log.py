"""What each run of a program took: a line as it starts and one as it ends, in `<rule>.<wildcards>.runs.jsonl` beside its log.

Every line has format_version (JOURNAL_VERSION; 1 where there is none) and event.

start   run (its id), program, at (UTC, ISO 8601), host, node, processes, threads and gpus (asked for, each times processes),
        slurm (None outside; else `id` and, if SLURM answered, what `query_allocation` reads)
end     run, at, outcome (done, restored: from the cache, failed, stopped: by a signal, superseded: another run of the job began
        later), cpu_seconds since its start and peak memory_mb (MiB), both of the first of its
        processes and its children

A run that was killed has no end. Nothing here is an artifact and nothing here may fail a job: what can't be written is not.
"""

import json
import os
import platform
import resource
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from medmim.common.slurm_client import query_allocation

JOURNAL_SUFFIX = ".runs.jsonl"
JOURNAL_VERSION = 1
"""Version of the format of a line: to be raised with any change of its fields or their meaning."""


class Journal:
    """The lines of one run; none without a log to write them beside. `workers`: processes it may start to share its work."""

    def __init__(self, log: Path | None, workers: int | None = None) -> None:
        self.path = None if log is None else log.with_name(log.name.removesuffix(".log") + JOURNAL_SUFFIX)
        self.workers = workers or 1
        self._run = uuid.uuid4().hex
        self._started_at, self._start_time = datetime.now(UTC), time.monotonic()
        self._child_kb: int | None = None
        self._cpu_seconds_before = 0.0

    def write_start(self, program: str, cfg: Any, threads: int | None) -> None:
        """Write the first line. `threads` as an option says; else the config part may, as of GPUs."""
        if self.path is None:
            return
        self._cpu_seconds_before = _read_cpu_seconds()
        job_id = os.environ.get("SLURM_JOB_ID")
        requested = cfg if isinstance(cfg, dict) else {}
        requested = requested.get("tuning") or requested
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        self._append_event(
            event="start",
            program=program,
            host=platform.node(),
            node=os.environ.get("SLURMD_NODENAME"),
            processes=processes,
            threads=(threads or requested.get("threads") or 1) * processes,
            gpus=requested.get("gpus") or 0,
            slurm=query_allocation(job_id) if job_id else None,
        )

    def record_child_memory(self) -> None:
        """Say that the work is over: a process started later counts with this one's memory, as it is a copy of it at first."""
        self._child_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss

    def write_end(self, outcome: str) -> None:
        """Write the last line."""
        if self.path is None:
            return
        own_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if self._child_kb is None:
            self.record_child_memory()
        child_kb = self._child_kb or 0
        memory_kb = own_kb + self.workers * child_kb if self.workers > 1 else max(own_kb, child_kb)
        self._append_event(
            event="end",
            outcome=outcome,
            cpu_seconds=round(_read_cpu_seconds() - self._cpu_seconds_before, 2),
            memory_mb=round(memory_kb / 1024, 1),
        )

    def _append_event(self, event: str, **fields: object) -> None:
        """Append in one go: what several write at a time stays lines."""
        assert self.path is not None
        now = self._started_at + timedelta(seconds=time.monotonic() - self._start_time)  # though the clock be set meanwhile
        at = now.isoformat(timespec="milliseconds")
        line = {"format_version": JOURNAL_VERSION, "event": event, "run": self._run, "at": at, **fields}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                size = os.fstat(file).st_size
                is_torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # by a full disk, or a node that was lost
                os.write(file, b"\n" * is_torn + json.dumps(line).encode() + b"\n")
            finally:
                os.close(file)


def _read_cpu_seconds() -> float:
    """CPU time of this process and of its children that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

"""Every run of a program that left a line in a journal of a results folder."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from medmim.common.slurm_client import parse_memory_size, parse_utc_time, run_slurm_client
from medmim.provenance.resource_log import JOURNAL_SUFFIX, JOURNAL_VERSION

log = logging.getLogger("medmim")


@dataclass
class ProgramRun:
    """One run of a program: an attempt at a job. `start` and `end` as journal.py has them, `end` empty where there is none."""

    rule: str
    job: str
    """Its wildcards, joined by points."""
    start: dict[str, Any]
    end: dict[str, Any]
    shares_slurm_job: bool = False
    """Whether its SLURM job ran other jobs of the workflow as well, and so asked for all of them."""

    @property
    def job_key(self) -> tuple[str, str]:
        """What a retry has in common with what it repeats."""
        return self.rule, self.job

    @property
    def slurm_record(self) -> dict[str, Any]:
        """What SLURM said of its job, empty outside."""
        return self.start["slurm"] or {}

    @property
    def outcome(self) -> str:
        """As the end says; unknown without one."""
        return str(self.end.get("outcome", "unknown"))

    @property
    def seconds(self) -> float | None:
        """How long the program ran, None where its end is not known."""
        return seconds_between(self.start["at"], self.end.get("at"))

    @property
    def queue_seconds(self) -> float | None:
        """Seconds from submission to start."""
        return seconds_between(self.slurm_record.get("submitted"), self.slurm_record.get("started"))

    @property
    def allocated_seconds(self) -> float | None:
        """Seconds from SLURM's start of the job to the program's end."""
        return seconds_between(self.slurm_record.get("started"), self.end.get("at"))

    @property
    def cpus(self) -> int:
        """CPUs it held."""
        return int((not self.shares_slurm_job and self.slurm_record.get("cpus")) or self.start["threads"])

    @property
    def gpus(self) -> int:
        """GPUs it held."""
        allocated_gpus = None if self.shares_slurm_job else self.slurm_record.get("gpus")
        return int(self.start["gpus"] if allocated_gpus is None else allocated_gpus)

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of all its processes, which are taken to do alike."""
        spent = self.end.get("cpu_seconds")
        return None if spent is None else spent * self.start["processes"]

    @property
    def memory_mb(self) -> float | None:
        """Peak memory a node, MiB."""
        peak = self.end.get("memory_mb")
        return None if peak is None else peak * self.start["processes"] / (self.slurm_record.get("nodes") or 1)


def seconds_between(first: str | None, second: str | None) -> float | None:
    """Seconds from one time to another, none for times that are not known."""
    if first is None or second is None:
        return None
    return max(0.0, (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds())


def read_runs(results: Path) -> list[ProgramRun]:
    """Runs in order of their start. How a killed one ended is asked of SLURM, where it keeps accounts."""
    program_runs = [run for path in sorted((results / "logs").glob(f"*{JOURNAL_SUFFIX}")) for run in _read_journal(path)]
    program_runs.sort(key=lambda run: run.start["at"])
    jobs_by_slurm_id: dict[str, set[tuple[str, str]]] = {}
    for run in program_runs:
        jobs_by_slurm_id.setdefault(run.slurm_record.get("id", ""), set()).add(run.job_key)
    for run in program_runs:
        run.shares_slurm_job = bool(run.slurm_record) and len(jobs_by_slurm_id[run.slurm_record["id"]]) > 1
    unended_runs = [run for run in program_runs if not run.end]
    accounts = _query_accounting({run.slurm_record["id"] for run in unended_runs if run.slurm_record})
    latest_runs = {run.job_key: run for run in program_runs}
    for run in unended_runs:
        run.end = _find_slurm_end(run, accounts) or ({} if run is latest_runs[run.job_key] else {"outcome": "killed"})
    return program_runs


def _read_journal(path: Path) -> Iterator[ProgramRun]:
    rule, _, job = path.name.removesuffix(JOURNAL_SUFFIX).partition(".")
    lines: dict[str, dict[str, dict[str, Any]]] = {"start": {}, "end": {}}
    other_versions: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            if (version := entry.get("format_version", 1)) != JOURNAL_VERSION:
                other_versions[str(version)] += 1
                continue
            lines[entry["event"]][entry["run"]] = entry
        except (ValueError, KeyError, TypeError, AttributeError):  # torn
            continue
    for version, count in other_versions.items():
        log.warning(
            "%s: %d lines of format version %s are not counted: this checkout reads version %d",
            path,
            count,
            version,
            JOURNAL_VERSION,
        )
    for run, start in lines["start"].items():
        yield ProgramRun(rule, job, start, lines["end"].get(run, {}))


def _query_accounting(jobs: Collection[str]) -> list[list[str]]:
    """What SLURM's database has of jobs and their steps: id, state, start, end, peak memory; nothing where there is none."""
    if not jobs:
        return []
    job_list = ",".join(sorted(jobs))
    return [  # with duplicates: what a job was before it was requeued
        parts
        for line in run_slurm_client(
            "sacct", "-nPD", "-S", "1970-01-01", "-o", "JobIDRaw,State,Start,End,MaxRSS", "-j", job_list
        ).splitlines()
        if len(parts := line.split("|")) == 5
    ]


def _find_slurm_end(run: ProgramRun, accounts: list[list[str]]) -> dict[str, Any]:
    """How SLURM saw a run end, empty where it does not know."""
    end_record: dict[str, Any] = {}
    for job, state, start, end, peak in accounts:
        began, ended = parse_utc_time(start), parse_utc_time(end)
        if job.split(".")[0] != run.slurm_record.get("id") or began is None or began > run.start["at"]:
            continue
        if ended is None:
            return {"outcome": "running"}
        if ended < run.start["at"]:
            continue  # the job before it was requeued
        if "." not in job:
            end_record |= {"outcome": state.split()[0].lower().replace("_", " "), "at": ended}  # CANCELLED by 0
        if peak:
            end_record["memory_mb"] = max(end_record.get("memory_mb", 0), parse_memory_size(peak))
    return end_record if "outcome" in end_record else {}

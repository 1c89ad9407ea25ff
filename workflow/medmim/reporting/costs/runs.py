"""Every run of a program that left a line in a journal of a results folder."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from medmim.common.slurm_client import mebibytes, slurm, utc
from medmim.provenance.resource_log import SUFFIX


@dataclass
class Run:
    """One run of a program: an attempt at a job. `start` and `end` as journal.py has them, `end` empty where there is none."""

    rule: str
    job: str
    """Its wildcards, joined by points."""
    start: dict[str, Any]
    end: dict[str, Any]
    shared: bool = False
    """Whether its SLURM job ran other jobs of the workflow as well, and so asked for all of them."""

    @property
    def name(self) -> tuple[str, str]:
        """What a retry has in common with what it repeats."""
        return self.rule, self.job

    @property
    def slurm(self) -> dict[str, Any]:
        """What SLURM said of its job, empty outside."""
        return self.start["slurm"] or {}

    @property
    def outcome(self) -> str:
        """As the end says; unknown without one."""
        return str(self.end.get("outcome", "unknown"))

    @property
    def seconds(self) -> float | None:
        """How long the program ran, None where its end is not known."""
        return between(self.start["at"], self.end.get("at"))

    @property
    def queued(self) -> float | None:
        """Seconds from submission to start."""
        return between(self.slurm.get("submitted"), self.slurm.get("started"))

    @property
    def allocated(self) -> float | None:
        """Seconds from SLURM's start of the job to the program's end."""
        return between(self.slurm.get("started"), self.end.get("at"))

    @property
    def cpus(self) -> int:
        """CPUs it held."""
        return int((not self.shared and self.slurm.get("cpus")) or self.start["threads"])

    @property
    def gpus(self) -> int:
        """GPUs it held."""
        given = None if self.shared else self.slurm.get("gpus")
        return int(self.start["gpus"] if given is None else given)

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of all its processes, which are taken to do alike."""
        spent = self.end.get("cpu_seconds")
        return None if spent is None else spent * self.start["processes"]

    @property
    def memory_mb(self) -> float | None:
        """Peak memory a node, MiB."""
        peak = self.end.get("memory_mb")
        return None if peak is None else peak * self.start["processes"] / (self.slurm.get("nodes") or 1)


def between(first: str | None, second: str | None) -> float | None:
    """Seconds from one time to another, none for times that are not known."""
    if first is None or second is None:
        return None
    return max(0.0, (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds())


def read(results: Path) -> list[Run]:
    """Runs in order of their start. How a killed one ended is asked of SLURM, where it keeps accounts."""
    found = [run for path in sorted((results / "logs").glob(f"*{SUFFIX}")) for run in _journal(path)]
    found.sort(key=lambda run: run.start["at"])
    names: dict[str, set[tuple[str, str]]] = {}
    for run in found:
        names.setdefault(run.slurm.get("id", ""), set()).add(run.name)
    for run in found:
        run.shared = bool(run.slurm) and len(names[run.slurm["id"]]) > 1
    unended = [run for run in found if not run.end]
    accounts = _accounts({run.slurm["id"] for run in unended if run.slurm})
    last = {run.name: run for run in found}
    for run in unended:
        run.end = _end(run, accounts) or ({} if run is last[run.name] else {"outcome": "killed"})
    return found


def _journal(path: Path) -> Iterator[Run]:
    rule, _, job = path.name.removesuffix(SUFFIX).partition(".")
    lines: dict[str, dict[str, dict[str, Any]]] = {"start": {}, "end": {}}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            told = json.loads(line)
            lines[told["event"]][told["run"]] = told
        except (ValueError, KeyError, TypeError):  # torn
            continue
    for run, start in lines["start"].items():
        yield Run(rule, job, start, lines["end"].get(run, {}))


def _accounts(jobs: Collection[str]) -> list[list[str]]:
    """What SLURM's database has of jobs and their steps: id, state, start, end, peak memory; nothing where there is none."""
    if not jobs:
        return []
    listed = ",".join(sorted(jobs))
    return [  # with duplicates: what a job was before it was requeued
        parts
        for line in slurm("sacct", "-nPD", "-S", "1970-01-01", "-o", "JobIDRaw,State,Start,End,MaxRSS", "-j", listed).splitlines()
        if len(parts := line.split("|")) == 5
    ]


def _end(run: Run, accounts: list[list[str]]) -> dict[str, Any]:
    """How SLURM saw a run end, empty where it does not know."""
    found: dict[str, Any] = {}
    for job, state, start, end, peak in accounts:
        began, ended = utc(start), utc(end)
        if job.split(".")[0] != run.slurm.get("id") or began is None or began > run.start["at"]:
            continue
        if ended is None:
            return {"outcome": "running"}
        if ended < run.start["at"]:
            continue  # the job before it was requeued
        if "." not in job:
            found |= {"outcome": state.split()[0].lower().replace("_", " "), "at": ended}  # CANCELLED by 0
        if peak:
            found["memory_mb"] = max(found.get("memory_mb", 0), mebibytes(peak))
    return found if "outcome" in found else {}

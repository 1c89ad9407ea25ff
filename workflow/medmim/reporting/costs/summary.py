"""Sums of runs: a row a job, and totals."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medmim.common.errors import SidecarError
from medmim.provenance import job_record
from medmim.reporting.costs.advice import advise
from medmim.reporting.costs.runs import Run, between

Row = dict[str, Any]
GOOD = ("done", "restored")
"""Outcomes of attempts that left the outputs."""
OPEN = ("running", "unknown")
"""Those of attempts that may still do so."""
ADDED = ("attempts", "retries", "run_seconds", "unmeasured", "cpu_hours", "cpu_used_hours", "gpu_hours")


def rows(runs: Sequence[Run]) -> list[Row]:
    """A row of the table costs for every job, by rule and job; `runs` in order of their start."""
    advice = defaultdict(list)
    for rules, text in advise(runs):
        for rule in rules:
            advice[rule].append(text)
    queued = _queues(runs)
    jobs: dict[tuple[str, str], list[tuple[Run, float | None]]] = defaultdict(list)
    for run, seconds in zip(runs, queued, strict=True):
        jobs[run.name].append((run, seconds))
    return [_row([r for r, _ in jobs[name]], [q for _, q in jobs[name]], "; ".join(advice[name[0]])) for name in sorted(jobs)]


def _queues(runs: Sequence[Run]) -> list[float | None]:
    """Time each waited, told once for each start of a SLURM job, which may run several jobs of the workflow."""
    starts = [(run.slurm.get("id"), run.slurm.get("started")) for run in runs]
    first = {start: number for number, start in reversed(list(enumerate(starts)))}
    return [run.queued if first[starts[number]] == number else None for number, run in enumerate(runs)]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _row(tried: Sequence[Run], queued: Sequence[float | None], advice: str) -> Row:
    first, last = tried[0], tried[-1]
    spent = [(run.cpu_seconds, run.cpus * run.seconds) for run in tried if run.seconds and run.cpu_seconds is not None]
    used, held = sum(used for used, _ in spent), sum(held for _, held in spent)
    return {
        "rule": last.rule,
        "job": last.job,
        "program": last.start["program"],
        "outcome": last.outcome,
        "attempts": len(tried),
        "retries": sum(run.outcome not in GOOD for run in tried[:-1]),
        "host": last.start["host"],
        "node": last.start["node"],
        "partition": last.slurm.get("partition"),
        "slurm_job_id": last.slurm.get("id"),
        "submitted": first.slurm.get("submitted"),
        "started": first.start["at"],
        "ended": last.end.get("at"),
        "queue_seconds": _sum(queued),
        "run_seconds": sum(run.seconds or 0.0 for run in tried),
        "unmeasured": sum(run.seconds is None for run in tried),
        "threads": last.cpus,
        "cpu_hours": sum(run.cpus * (run.seconds or 0.0) for run in tried) / 3600,
        "cpu_used_hours": used / 3600,
        "cpu_efficiency": used / held if held else None,
        "gpu_hours": sum(run.gpus * (run.seconds or 0.0) for run in tried) / 3600,
        "memory_asked_mb": last.slurm.get("memory_mb"),
        "memory_mb": _most(run.memory_mb for run in tried),
        "limit_seconds": last.slurm.get("limit_seconds"),
        "used_seconds": _most(run.allocated for run in tried),
        "advice": advice or None,
    }


def by_rule(table: Sequence[Row]) -> list[Row]:
    """A total a rule, what ran longest first."""
    rules = dict.fromkeys(row["rule"] for row in table)
    found = [total(rule, [row for row in table if row["rule"] == rule]) for rule in rules]
    return sorted(found, key=lambda row: (-row["run_seconds"], row["name"]))


def total(name: str, table: Sequence[Row]) -> Row:
    """Several jobs as one: sums, the largest of peaks, and how many came to nothing."""
    held = sum(row["cpu_hours"] for row in table if row["cpu_efficiency"] is not None)
    return {
        "name": name,
        "jobs": len(table),
        "unfinished": sum(row["outcome"] not in (*GOOD, *OPEN) for row in table),
        **{key: sum(row[key] for row in table) for key in ADDED},
        "queue_seconds": _sum(row["queue_seconds"] for row in table),
        "cpu_efficiency": sum(row["cpu_used_hours"] for row in table) / held if held else None,
        "memory_mb": _most(row["memory_mb"] for row in table),
    }


def cached(results: Path) -> tuple[int, float]:
    """How many jobs' outputs came from the cache, and the seconds it took to compute them where that was done."""
    seals = {}
    for path in job_record.sidecars(results):
        try:
            record = job_record.read(path)
        except (SidecarError, OSError):  # the audit's to tell
            continue
        if "restored" in record:
            seals[record["seal"]] = between(record["start"], record["end"]) or 0.0
    return len(seals), sum(seals.values())

"""Sums of runs: a row a job, and totals."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medmim.common.errors import RecordVersionError, SidecarError
from medmim.provenance import job_record
from medmim.reporting.costs.advice import suggest_settings
from medmim.reporting.costs.runs import ProgramRun, seconds_between

log = logging.getLogger("medmim")
CostRow = dict[str, Any]
SUCCESSFUL_OUTCOMES = ("done", "restored")
"""Outcomes of attempts that left the outputs."""
OPEN_OUTCOMES = ("running", "unknown")
"""Those of attempts that may still do so."""
SUMMED_COLUMNS = ("attempts", "retries", "run_seconds", "unmeasured", "cpu_hours", "cpu_used_hours", "gpu_hours")


def build_job_rows(runs: Sequence[ProgramRun]) -> list[CostRow]:
    """A row of the table costs for every job, by rule and job; `runs` in order of their start."""
    advice = defaultdict(list)
    for rules, text in suggest_settings(runs):
        for rule in rules:
            advice[rule].append(text)
    queue_times = _assign_queue_times(runs)
    jobs: dict[tuple[str, str], list[tuple[ProgramRun, float | None]]] = defaultdict(list)
    for run, seconds in zip(runs, queue_times, strict=True):
        jobs[run.job_key].append((run, seconds))
    return [
        _build_job_row([r for r, _ in jobs[name]], [q for _, q in jobs[name]], "; ".join(advice[name[0]]))
        for name in sorted(jobs)
    ]


def _assign_queue_times(runs: Sequence[ProgramRun]) -> list[float | None]:
    """Time each waited, told once for each start of a SLURM job, which may run several jobs of the workflow."""
    starts = [(run.slurm_record.get("id"), run.slurm_record.get("started")) for run in runs]
    first = {start: number for number, start in reversed(list(enumerate(starts)))}
    return [run.queue_seconds if first[starts[number]] == number else None for number, run in enumerate(runs)]


def _sum_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _max_known(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _build_job_row(attempts: Sequence[ProgramRun], queue_times: Sequence[float | None], advice: str) -> CostRow:
    first, last = attempts[0], attempts[-1]
    cpu_measurements = [
        (run.cpu_seconds, run.cpus * run.seconds) for run in attempts if run.seconds and run.cpu_seconds is not None
    ]
    used, held_seconds = sum(used for used, _ in cpu_measurements), sum(held for _, held in cpu_measurements)
    return {
        "rule": last.rule,
        "job": last.job,
        "program": last.start["program"],
        "outcome": last.outcome,
        "attempts": len(attempts),
        "retries": sum(run.outcome not in SUCCESSFUL_OUTCOMES for run in attempts[:-1]),
        "host": last.start["host"],
        "node": last.start["node"],
        "partition": last.slurm_record.get("partition"),
        "slurm_job_id": last.slurm_record.get("id"),
        "submitted": first.slurm_record.get("submitted"),
        "started": first.start["at"],
        "ended": last.end.get("at"),
        "queue_seconds": _sum_known(queue_times),
        "run_seconds": sum(run.seconds or 0.0 for run in attempts),
        "unmeasured": sum(run.seconds is None for run in attempts),
        "threads": last.cpus,
        "cpu_hours": sum(run.cpus * (run.seconds or 0.0) for run in attempts) / 3600,
        "cpu_used_hours": used / 3600,
        "cpu_efficiency": used / held_seconds if held_seconds else None,
        "gpu_hours": sum(run.gpus * (run.seconds or 0.0) for run in attempts) / 3600,
        "memory_asked_mb": last.slurm_record.get("memory_mb"),
        "memory_mb": _max_known(run.memory_mb for run in attempts),
        "limit_seconds": last.slurm_record.get("limit_seconds"),
        "used_seconds": _max_known(run.allocated_seconds for run in attempts),
        "advice": advice or None,
    }


def sum_by_rule(table: Sequence[CostRow]) -> list[CostRow]:
    """A total a rule, what ran longest first."""
    rules = dict.fromkeys(row["rule"] for row in table)
    totals = [sum_jobs(rule, [row for row in table if row["rule"] == rule]) for rule in rules]
    return sorted(totals, key=lambda row: (-row["run_seconds"], row["name"]))


def sum_jobs(name: str, table: Sequence[CostRow]) -> CostRow:
    """Several jobs as one: sums, the largest of peaks, and how many came to nothing."""
    held_hours = sum(row["cpu_hours"] for row in table if row["cpu_efficiency"] is not None)
    return {
        "name": name,
        "jobs": len(table),
        "unfinished": sum(row["outcome"] not in (*SUCCESSFUL_OUTCOMES, *OPEN_OUTCOMES) for row in table),
        **{key: sum(row[key] for row in table) for key in SUMMED_COLUMNS},
        "queue_seconds": _sum_known(row["queue_seconds"] for row in table),
        "cpu_efficiency": sum(row["cpu_used_hours"] for row in table) / held_hours if held_hours else None,
        "memory_mb": _max_known(row["memory_mb"] for row in table),
    }


def count_cached_jobs(results: Path) -> tuple[int, float]:
    """How many jobs' outputs came from the cache, and the seconds it took to compute them where that was done."""
    seconds_by_seal = {}
    other_versions: list[RecordVersionError] = []
    for path in job_record.find_sidecars(results):
        try:
            record = job_record.read_record(path)
        except RecordVersionError as error:
            other_versions.append(error)
            continue
        except (SidecarError, OSError):  # the audit's to tell
            continue
        if "restored" in record:
            seconds_by_seal[record["seal"]] = seconds_between(record["start"], record["end"]) or 0.0
    if other_versions:
        log.warning("%d records are not counted; the first: %s", len(other_versions), other_versions[0])
    return len(seconds_by_seal), sum(seconds_by_seal.values())

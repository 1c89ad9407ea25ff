"""Asked against used: the settings to change, where it matters."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from medmim.reporting.costs.runs import ProgramRun

CLOSE_TO_LIMIT_SHARE = 0.8
"""Use of what was asked, above which a next run may fail."""
EXCESS_FACTOR = 4
"""Times more asked than used is too much."""
IDLE_SHARE = 0.3
"""Use of threads below which most of them wait."""
MIN_MEASURED_SECONDS = 60
"""Seconds; programs that end sooner spend them on starting and tell nothing of threads."""
THREAD_SETTINGS = {"predict": "prediction: threads: {} in the config", "tune": "models: NAME: tuning: threads: {} in the config"}
"""Where the threads of a rule are set, if not in the profile."""

RuleNames = tuple[str, ...]
Suggestion = tuple[bool, str] | None
"""Whether it is urgent, and what to change."""


@dataclass
class SlurmStart:
    """One start of a SLURM job, and the runs in it."""

    runs: list[ProgramRun]

    @property
    def rules(self) -> RuleNames:
        """Rules it ran, each once."""
        return tuple(sorted({run.rule for run in self.runs}))

    @property
    def outcomes(self) -> set[str]:
        """How they ended."""
        return {run.outcome for run in self.runs}

    @property
    def memory_mb(self) -> float | None:
        """Peak of those that ran at a time, as if all were at their own peaks then; None where one is not known."""
        measured_runs = [(run.start["at"], run.end["at"], run.memory_mb) for run in self.runs if run.memory_mb is not None]
        if len(measured_runs) < len(self.runs):
            return None
        return max(sum(peak for start, end, peak in measured_runs if start <= moment < end) for moment, *_ in measured_runs)

    @property
    def minutes(self) -> float | None:
        """From SLURM's start to the end of the last; None where one is not known."""
        run_minutes = [run.allocated_seconds / 60 for run in self.runs if run.allocated_seconds is not None]
        return max(run_minutes) if len(run_minutes) == len(self.runs) else None


@dataclass(frozen=True)
class ResourceLimit:
    """A resource that a job asks for and may not exceed."""

    key: str
    unit: str
    overrun_outcome: str
    """SLURM's word for a job that did."""
    requested: Callable[[ProgramRun], float | None]
    used: Callable[[SlurmStart], float | None]
    negligible: float
    """Up to so much nobody waits for."""
    step: int
    overhead: float
    """What is needed beside the program: memory by two processes of Snakemake's, time to start."""


LIMITS = (
    ResourceLimit(
        "mem_mb", "MB", "out of memory", lambda run: run.slurm_record.get("memory_mb"), lambda use: use.memory_mb, 1024, 500, 500
    ),
    ResourceLimit(
        "runtime",
        "min",
        "timeout",
        lambda run: (run.slurm_record.get("limit_seconds") or 0) / 60,
        lambda use: use.minutes,
        60,
        10,
        5,
    ),
)


def suggest_settings(runs: Iterable[ProgramRun]) -> list[tuple[RuleNames, str]]:
    """Rules and what to change, first what may fail next time, then what ran longest. `runs` in order of their start."""
    runs = list(runs)
    restored_starts = {
        _slurm_start_key(run) for run in runs if run.outcome == "restored"
    }  # what came from the cache needs next to nothing
    runs_by_rule: dict[str, list[ProgramRun]] = defaultdict(list)
    starts_by_key: dict[object, SlurmStart] = {}
    for run in _select_latest_attempts(run for run in runs if run.outcome != "restored"):
        runs_by_rule[run.rule].append(run)
        if run.slurm_record and _slurm_start_key(run) not in restored_starts:
            starts_by_key.setdefault(_slurm_start_key(run), SlurmStart([])).runs.append(run)
    starts_by_rules: dict[RuleNames, list[SlurmStart]] = defaultdict(list)
    for slurm_start in starts_by_key.values():
        starts_by_rules[slurm_start.rules].append(slurm_start)
    suggestions: list[tuple[bool, float, RuleNames, str]] = []

    def add_suggestion(names: RuleNames, attempts: Iterable[ProgramRun], suggestion: Suggestion) -> None:
        if suggestion:
            suggestions.append((not suggestion[0], -sum(run.seconds or 0 for run in attempts), names, suggestion[1]))

    for rule, attempts in runs_by_rule.items():
        add_suggestion((rule,), attempts, _suggest_threads(rule, attempts))
    for names, rule_starts in starts_by_rules.items():
        for limit in LIMITS:
            add_suggestion(names, [run for use in rule_starts for run in use.runs], _suggest_limit(limit, names, rule_starts))
    return [(names, text) for *_, names, text in sorted(suggestions)]


def _slurm_start_key(run: ProgramRun) -> object:
    """What the runs in one start of a SLURM job have in common."""
    return run.slurm_record.get("id"), run.slurm_record.get("started")


def _select_latest_attempts(runs: Iterable[ProgramRun]) -> list[ProgramRun]:
    """The attempts at each job that its last success took: what came before may have had other settings."""
    attempts_by_job: dict[tuple[str, str], list[ProgramRun]] = defaultdict(list)
    for run in runs:
        if (attempts := attempts_by_job[run.job_key]) and attempts[-1].outcome == "done":
            attempts.clear()
        attempts.append(run)
    return [run for tried in attempts_by_job.values() for run in tried]


def _suggest_limit(limit: ResourceLimit, rules: RuleNames, starts: Sequence[SlurmStart]) -> Suggestion:
    def round_up_limit(used: float) -> int:
        return math.ceil((1.5 * used + limit.overhead) / limit.step) * limit.step

    def format_setting(value: float, why: str) -> str:
        if any(len(use.runs) > 1 for use in starts):  # what was asked for each was added up, or the most of it taken
            return f"set-resources: {', '.join(rules)}: {limit.key}: {value:.0f} for all together, one SLURM job ({why})"
        return f"set-resources: {rules[0]}: {limit.key}: {value:.0f} * attempt ({why})"

    def format_usage(requested: float, used: float) -> str:
        return f"asked {requested:,.0f} {limit.unit}, used {used:,.{0 if used >= 10 else 1}f} {limit.unit}"

    complete_starts = [use for use in starts if "stopped" not in use.outcomes]  # which tells nothing of what it needs
    measurements = [
        (requested, limit.used(use), use.outcomes) for use in complete_starts if (requested := limit.requested(use.runs[0]))
    ]
    if overrun_requests := [asked for asked, _, outcomes in measurements if limit.overrun_outcome in outcomes]:
        return True, format_setting(2 * max(overrun_requests), f"{max(overrun_requests):,.0f} {limit.unit} did not suffice")
    if tight_measurements := [
        (used, asked) for asked, used, _ in measurements if used is not None and used > CLOSE_TO_LIMIT_SHARE * asked
    ]:
        used, requested = max(tight_measurements)
        return True, format_setting(round_up_limit(used), format_usage(requested, used))
    successes = [(asked, used) for asked, used, outcomes in measurements if used is not None and outcomes == {"done"}]
    if not successes or len(complete_starts) < len(starts):  # what goes on where it was stopped needs less than the whole
        return None
    requested, used = min(asked for asked, _ in successes), max(used for _, used in successes)
    if requested <= max(limit.negligible, EXCESS_FACTOR * used, 2 * round_up_limit(used)):
        return None
    return False, format_setting(round_up_limit(used), format_usage(requested, used))


def _suggest_threads(rule: str, runs: Iterable[ProgramRun]) -> Suggestion:
    measurements = [(r.cpus, seconds, used) for r in runs if (seconds := r.seconds) and (used := r.cpu_seconds) is not None]
    requested, held_seconds = (
        max((cpus for cpus, *_ in measurements), default=0),
        sum(cpus * seconds for cpus, seconds, _ in measurements),
    )
    if requested < 2 or held_seconds < MIN_MEASURED_SECONDS * requested:
        return None
    share = sum(used for *_, used in measurements) / held_seconds
    if share >= IDLE_SHARE:
        return None
    setting = THREAD_SETTINGS.get(rule, f"set-threads: {rule}: {{}}").format(max(1, math.ceil(2 * share * requested)))
    return False, f"{setting} (asked {requested}, used {share * requested:.1f} on average)"

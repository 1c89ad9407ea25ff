"""Asked against used: the settings to change, where it matters."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from medmim.reporting.costs.runs import Run

CLOSE = 0.8
"""Use of what was asked, above which a next run may fail."""
FAR = 4
"""Times more asked than used is too much."""
IDLE = 0.3
"""Use of threads below which most of them wait."""
BRIEF = 60
"""Seconds; programs that end sooner spend them on starting and tell nothing of threads."""
CONFIGURED = {"predict": "prediction: threads: {} in the config", "tune": "models: NAME: tuning: threads: {} in the config"}
"""Where the threads of a rule are set, if not in the profile."""

Rules = tuple[str, ...]
Said = tuple[bool, str] | None
"""Whether it is urgent, and what to change."""


@dataclass
class Use:
    """One start of a SLURM job, and the runs in it."""

    runs: list[Run]

    @property
    def rules(self) -> Rules:
        """Rules it ran, each once."""
        return tuple(sorted({run.rule for run in self.runs}))

    @property
    def outcomes(self) -> set[str]:
        """How they ended."""
        return {run.outcome for run in self.runs}

    @property
    def memory_mb(self) -> float | None:
        """Peak of those that ran at a time, as if all were at their own peaks then; None where one is not known."""
        known = [(run.start["at"], run.end["at"], run.memory_mb) for run in self.runs if run.memory_mb is not None]
        if len(known) < len(self.runs):
            return None
        return max(sum(peak for start, end, peak in known if start <= moment < end) for moment, *_ in known)

    @property
    def minutes(self) -> float | None:
        """From SLURM's start to the end of the last; None where one is not known."""
        known = [run.allocated / 60 for run in self.runs if run.allocated is not None]
        return max(known) if len(known) == len(self.runs) else None


@dataclass(frozen=True)
class Limit:
    """A resource that a job asks for and may not exceed."""

    key: str
    unit: str
    overrun: str
    """SLURM's word for a job that did."""
    asked: Callable[[Run], float | None]
    used: Callable[[Use], float | None]
    small: float
    """Up to so much nobody waits for."""
    step: int
    beside: float
    """What is needed beside the program: memory by two processes of Snakemake's, time to start."""


LIMITS = (
    Limit("mem_mb", "MB", "out of memory", lambda run: run.slurm.get("memory_mb"), lambda use: use.memory_mb, 1024, 500, 500),
    Limit(
        "runtime", "min", "timeout", lambda run: (run.slurm.get("limit_seconds") or 0) / 60, lambda use: use.minutes, 60, 10, 5
    ),
)


def advise(runs: Iterable[Run]) -> list[tuple[Rules, str]]:
    """Rules and what to change, first what may fail next time, then what ran longest. `runs` in order of their start."""
    runs = list(runs)
    spared = {_start(run) for run in runs if run.outcome == "restored"}  # what came from the cache needs next to nothing
    rules: dict[str, list[Run]] = defaultdict(list)
    starts: dict[object, Use] = {}
    for run in _latest(run for run in runs if run.outcome != "restored"):
        rules[run.rule].append(run)
        if run.slurm and _start(run) not in spared:
            starts.setdefault(_start(run), Use([])).runs.append(run)
    uses: dict[Rules, list[Use]] = defaultdict(list)
    for use in starts.values():
        uses[use.rules].append(use)
    found: list[tuple[bool, float, Rules, str]] = []

    def add(names: Rules, tried: Iterable[Run], said: Said) -> None:
        if said:
            found.append((not said[0], -sum(run.seconds or 0 for run in tried), names, said[1]))

    for rule, tried in rules.items():
        add((rule,), tried, _threads(rule, tried))
    for names, same in uses.items():
        for limit in LIMITS:
            add(names, [run for use in same for run in use.runs], _limit(limit, names, same))
    return [(names, text) for *_, names, text in sorted(found)]


def _start(run: Run) -> object:
    """What the runs in one start of a SLURM job have in common."""
    return run.slurm.get("id"), run.slurm.get("started")


def _latest(runs: Iterable[Run]) -> list[Run]:
    """The attempts at each job that its last success took: what came before may have had other settings."""
    kept: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if (tried := kept[run.name]) and tried[-1].outcome == "done":
            tried.clear()
        tried.append(run)
    return [run for tried in kept.values() for run in tried]


def _limit(limit: Limit, rules: Rules, uses: Sequence[Use]) -> Said:
    def rounded(used: float) -> int:
        return math.ceil((1.5 * used + limit.beside) / limit.step) * limit.step

    def told(value: float, why: str) -> str:
        if any(len(use.runs) > 1 for use in uses):  # what was asked for each was added up, or the most of it taken
            return f"set-resources: {', '.join(rules)}: {limit.key}: {value:.0f} for all together, one SLURM job ({why})"
        return f"set-resources: {rules[0]}: {limit.key}: {value:.0f} * attempt ({why})"

    def numbers(asked: float, used: float) -> str:
        return f"asked {asked:,.0f} {limit.unit}, used {used:,.{0 if used >= 10 else 1}f} {limit.unit}"

    kept = [use for use in uses if "stopped" not in use.outcomes]  # which tells nothing of what it needs
    known = [(asked, limit.used(use), use.outcomes) for use in kept if (asked := limit.asked(use.runs[0]))]
    if over := [asked for asked, _, outcomes in known if limit.overrun in outcomes]:
        return True, told(2 * max(over), f"{max(over):,.0f} {limit.unit} did not suffice")
    if close := [(used, asked) for asked, used, _ in known if used is not None and used > CLOSE * asked]:
        used, asked = max(close)
        return True, told(rounded(used), numbers(asked, used))
    done = [(asked, used) for asked, used, outcomes in known if used is not None and outcomes == {"done"}]
    if not done or len(kept) < len(uses):  # what goes on where it was stopped needs less than the whole
        return None
    asked, used = min(asked for asked, _ in done), max(used for _, used in done)
    if asked <= max(limit.small, FAR * used, 2 * rounded(used)):
        return None
    return False, told(rounded(used), numbers(asked, used))


def _threads(rule: str, runs: Iterable[Run]) -> Said:
    known = [(r.cpus, seconds, used) for r in runs if (seconds := r.seconds) and (used := r.cpu_seconds) is not None]
    asked, held = max((cpus for cpus, *_ in known), default=0), sum(cpus * seconds for cpus, seconds, _ in known)
    if asked < 2 or held < BRIEF * asked:
        return None
    share = sum(used for *_, used in known) / held
    if share >= IDLE:
        return None
    setting = CONFIGURED.get(rule, f"set-threads: {rule}: {{}}").format(max(1, math.ceil(2 * share * asked)))
    return False, f"{setting} (asked {asked}, used {share * asked:.1f} on average)"

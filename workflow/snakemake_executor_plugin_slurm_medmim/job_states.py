"""What SLURM says of the state of jobs, and what is made of it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from medmim.common.slurm_client import QueueRow, SlurmJob, query_accounting

ACTIVE_STATES = {
    "CONFIGURING",
    "COMPLETING",
    "PENDING",
    "REQUEUED",
    "RESIZING",
    "RUNNING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
}
TRANSIENT_STATES = {"PREEMPTED", "NODE_FAIL"}
"""States that a job may have for a moment, until SLURM requeues it."""


class JobStates:
    """States of jobs, asked for until there is an answer."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self._transient_counts: Counter[SlurmJob] = Counter()
        self._is_silent = False
        self._last_states: dict[SlurmJob, str] = {}
        self.have_changed = False
        """Whether the last answer had news."""

    def controller_answered(self, answer: object) -> bool:
        """Whether the controller answered; says so when that changes."""
        if (answer is None) != self._is_silent:
            self._is_silent = answer is None
            self.logger.warning(
                "SLURM does not answer: waiting for it; jobs that run go on" if self._is_silent else "SLURM answers again"
            )
        return answer is not None

    def update_states(self, jobs: Iterable[SlurmJob], queue_rows: list[QueueRow]) -> dict[SlurmJob, str]:
        """State of each job, given what squeue says."""
        known_states = {row.job: row.state for row in queue_rows}
        jobs = list(jobs)
        if unlisted_jobs := [each for each in jobs if each not in known_states]:
            known_states |= query_accounting(unlisted_jobs)
        states = {each: known_states.get(each, "UNKNOWN") for each in jobs}
        for each, state in states.items():
            self._transient_counts[each] = self._transient_counts[each] + 1 if state in TRANSIENT_STATES else 0
            if self._transient_counts[each] > 1:  # it was so at the last question already: SLURM leaves it at that
                states[each] = "CANCELLED" if state == "PREEMPTED" else "FAILED"
        self.have_changed = states != self._last_states
        self._last_states = states
        return states

"""What SLURM says of the state of jobs, and what is made of it."""

from collections import Counter
from typing import Any

from medmim.common.slurm_client import query_accounting

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
        self._transient_counts: Counter[str] = Counter()
        self._is_silent = False
        self._last_states: dict[str, str] = {}
        self.unchanged_polls = 0
        """Answers without news, one after the other."""

    def controller_answered(self, answer: object) -> bool:
        """Whether the controller answered; says so when that changes."""
        if (answer is None) != self._is_silent:
            self._is_silent = answer is None
            self.logger.warning(
                "SLURM does not answer: waiting for it; jobs that run go on" if self._is_silent else "SLURM answers again"
            )
        return answer is not None

    def update_states(self, ids: list[str], queue_rows: list[list[str]]) -> dict[str, str]:
        """State of each job, `listed` being what squeue says."""
        states_by_id = {row[0]: row[1] for row in queue_rows}
        if unlisted_ids := [each for each in ids if each not in states_by_id]:
            states_by_id |= {row[0]: row[1].split()[0] for row in query_accounting(unlisted_ids) if row[1]}
        states = {each: states_by_id.get(each, "UNKNOWN") for each in ids}
        for each, state in states.items():
            self._transient_counts[each] = self._transient_counts[each] + 1 if state in TRANSIENT_STATES else 0
            if self._transient_counts[each] > 1:  # it was so at the last question already: SLURM leaves it at that
                states[each] = "CANCELLED" if state == "PREEMPTED" else "FAILED"
        self.unchanged_polls = self.unchanged_polls + 1 if states == self._last_states else 0
        self._last_states = states
        return states

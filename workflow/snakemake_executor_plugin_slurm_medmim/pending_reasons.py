"""Why jobs wait in SLURM's queue, said once, with what to do where they would wait for ever."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from medmim.common.slurm_client import QueueRow, SlurmJob

PASSING_SECONDS = 30
"""Seconds after which also a reason is said that passes by itself: at a busy time every job has one for a moment."""
PASSING_REASONS = {
    "": "SLURM has not looked at them yet",
    "None": "SLURM has not looked at them yet",
    "Priority": "jobs of others come first",
    "Resources": "no node is free that has what they ask for",
    "BeginTime": "SLURM starts them a little later, as after each requeue",
    "JobArrayTaskLimit": "others of their array run",
    "Cleaning": "what ran before on their node is cleared away",
    "Prolog": "their node is being prepared",
    "Licenses": "no licence is free",
}
"""What reasons mean for which there is nothing to do, in words."""
REMEDIES = {
    "PartitionTimeLimit": "they can never start: their time is above their partition's limit (sinfo -o '%P %l'): "
    "set runtime in the profile, or another slurm_partition",
    r"(Assoc|QOS)\w*WallDuration\w*": "they can never start: their time is above the limit of their account or QOS "
    "(sacctmgr show assoc,qos format=name,account,maxwall): set runtime in the profile",
    r"(Assoc|QOS)Max\w*(PerJob|PerNode)\w*|PartitionNodeLimit": "they can never start: they ask for more than their partition, "
    "account or QOS allows a job: ask for less in the profile",
    "JobHeldUser": "they are held: scontrol release {jobs}",
    "JobHeldAdmin": "an administrator holds them, or SLURM does for their priority of 0: ask your site",
    "job requeued in held state|JobHoldMaxRequeue|JobRequeueHeld": "they were queued again and are held: scontrol release {jobs}",
    r"launch failed requeued held|JobLaunchFailure|launch_failed_requeued_held": "their node could not start them (its prolog "
    "failed, or it is misconfigured): tell your site, and then scontrol release {jobs}",
    "BadConstraints|NodeShapeUnavailable|PartitionConfig|FrontEndDown": "they can never start: no node of their partition is as "
    "they ask for: mend constraint, slurm_extra or slurm_partition in the profile",
    "PartitionDown|PartitionInactive": "their partition is closed for now: they start when your site opens it "
    "(scontrol show partition), or set another slurm_partition",
    "InvalidAccount|AccountNotAllowed|QOSNotAllowed|InvalidQOS": "they can never start: their account or QOS may not be used "
    "here: set slurm_account or qos in the profile",
    r"Reservation\w*": "their reservation has not begun, or is gone (scontrol show reservation)",
    "DependencyNeverSatisfied": "they can never start: scancel {jobs}, and the run tries again",
    r"ReqNodeNotAvail.*|NodeDown|Nodes required .*": "nodes that they need are down, drained or reserved: they start when these "
    "come back (sinfo -R)",
    r"(Assoc|QOS)\w*": "a limit of their account or QOS is reached: they start when other jobs end",
}
"""What to do, by reasons as SLURM writes them; the first that matches counts."""
MAX_NAMED_JOBS = 3
"""Jobs that are named in a line."""


def explain_reason(reason: str) -> str:
    """What a reason means, and what to do; empty for one that is not known here."""
    if reason in PASSING_REASONS:
        return PASSING_REASONS[reason]
    return next((words for pattern, words in REMEDIES.items() if re.fullmatch(pattern, reason)), "")


class PendingReasons:
    """Says why jobs are pending, once for each job and reason."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self._said: set[tuple[SlurmJob, str]] = set()
        self._first_seen: dict[tuple[SlurmJob, str], float] = {}

    def say_reasons(self, rows: Iterable[QueueRow], now: float) -> None:
        """Say the reasons of jobs that are new; `now` in seconds, of any clock."""
        jobs_by_reason: dict[str, list[SlurmJob]] = defaultdict(list)
        for row in rows:
            # The controller adds to some reasons which nodes it means.
            reason = row.reason.split(",")[0] if row.reason.startswith("ReqNodeNotAvail") else row.reason
            key = (row.job, reason)
            if row.state != "PENDING" or key in self._said:
                continue
            if reason in PASSING_REASONS and now - self._first_seen.setdefault(key, now) < PASSING_SECONDS:
                continue
            self._said.add(key)
            jobs_by_reason[reason].append(row.job)
        for reason, jobs in jobs_by_reason.items():
            self._say_reason(reason, jobs)

    def _say_reason(self, reason: str, jobs: list[SlurmJob]) -> None:
        names = [str(job) for job in jobs[:MAX_NAMED_JOBS]]
        more = len(jobs) - len(names)
        words = explain_reason(reason).format(jobs=" ".join(job.id for job in jobs))
        log = self.logger.info if reason in PASSING_REASONS else self.logger.warning
        log(
            f"SLURM job{'s' * (len(jobs) > 1)} {', '.join(names)}{f' and {more} more' if more else ''} "
            f"wait{'s' * (len(jobs) == 1)} in the queue: {reason or 'no reason yet'}{f' ({words})' if words else ''}"
        )

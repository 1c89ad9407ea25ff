"""Being told to stop, and going on elsewhere: SLURM sends SIGTERM before it takes a node back, or (--signal) time runs out.

Before the first step a program ends at once; later it ends the step that runs and writes a checkpoint. Either way it ends with
status 75, "try again", and asks SLURM to queue the job again, unless it is its user who ended it.
"""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from medmim.common.errors import RunInterruptedError

log = logging.getLogger("medmim")
SCONTROL_TIMEOUT_SECONDS = 20
"""Seconds that SLURM may take to answer: it kills what is not gone soon."""


class StopRequest:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        self.is_requested = False
        self.steps: int | None = None
        """Steps done since the start of this process; None before training, when there is nothing to be kept."""

    def handle_signal(self, *signal: object) -> None:
        """To be called by the signal. Raises RunInterruptedError before training, once."""
        already_requested, self.is_requested = self.is_requested, True
        if self.steps is None and not already_requested:
            raise RunInterruptedError("told to stop (SIGTERM) before training began")


@contextmanager
def stop_on_sigterm(first: bool) -> Iterator[StopRequest]:
    """Heed SIGTERM within. `first`: this process of several speaks with SLURM."""
    stop = StopRequest()
    previous_handler = signal.signal(signal.SIGTERM, stop.handle_signal)
    try:
        yield stop
    except SystemExit as end:
        if end.code == RunInterruptedError.exit_status and first:
            requeue_job(made_progress=bool(stop.steps))
        raise
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def _run_scontrol(*arguments: str) -> str:
    return subprocess.run(
        ["scontrol", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=SCONTROL_TIMEOUT_SECONDS,
        env=os.environ | {"LC_ALL": "C"},
    ).stdout


def requeue_job(made_progress: bool) -> None:
    """Ask SLURM to queue this job again; nothing outside SLURM. `made_progress`: a step was done in this run.

    A job that ends by itself while its node is taken back is not queued again by SLURM. One that SLURM is ending already is
    left alone: it was cancelled, or its time is over, or it is queued again. So is one that did nothing in its time: it would
    do so for ever.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    try:
        job_fields = dict(re.findall(r"(\w+)=(\S*)", _run_scontrol("show", "job", "--oneliner", job)))
        if job_fields["JobState"] != "RUNNING":
            log.info("SLURM job %s is ending (%s): it is not queued again", job, job_fields["JobState"])
        elif not made_progress and job_fields.get("PreemptTime", "None") == "None":
            log.warning("SLURM job %s did no step in its time: it is not queued again. Give it a longer time limit", job)
        else:
            log.info("SLURM job %s is queued again", job)  # before it is: SLURM ends this process then
            _run_scontrol("requeue", job)
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        log.warning("SLURM did not queue job %s again (%s): start it again, it goes on from its checkpoint", job, reason)

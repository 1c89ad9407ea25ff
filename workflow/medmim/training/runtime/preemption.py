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

from medmim.common.errors import Interrupted

log = logging.getLogger("medmim")
PATIENCE = 20
"""Seconds that SLURM may take to answer: it kills what is not gone soon."""


class Stop:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        self.asked = False
        self.steps: int | None = None
        """Steps done since the start of this process; None before training, when there is nothing to be kept."""

    def tell(self, *signal: object) -> None:
        """To be called by the signal. Raises Interrupted before training, once."""
        again, self.asked = self.asked, True
        if self.steps is None and not again:
            raise Interrupted("told to stop (SIGTERM) before training began")


@contextmanager
def stoppable(first: bool) -> Iterator[Stop]:
    """Heed SIGTERM within. `first`: this process of several speaks with SLURM."""
    stop = Stop()
    before = signal.signal(signal.SIGTERM, stop.tell)
    try:
        yield stop
    except SystemExit as end:
        if end.code == Interrupted.status and first:
            requeue(moved=bool(stop.steps))
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _scontrol(*arguments: str) -> str:
    return subprocess.run(
        ["scontrol", *arguments], capture_output=True, text=True, check=True, timeout=PATIENCE, env=os.environ | {"LC_ALL": "C"}
    ).stdout


def requeue(moved: bool) -> None:
    """Ask SLURM to queue this job again; nothing outside SLURM. `moved`: a step was done in this run.

    A job that ends by itself while its node is taken back is not queued again by SLURM. One that SLURM is ending already is
    left alone: it was cancelled, or its time is over, or it is queued again. So is one that did nothing in its time: it would
    do so for ever.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    try:
        told = dict(re.findall(r"(\w+)=(\S*)", _scontrol("show", "job", "--oneliner", job)))
        if told["JobState"] != "RUNNING":
            log.info("SLURM job %s is ending (%s): it is not queued again", job, told["JobState"])
        elif not moved and told.get("PreemptTime", "None") == "None":
            log.warning("SLURM job %s did no step in its time: it is not queued again. Give it a longer time limit", job)
        else:
            log.info("SLURM job %s is queued again", job)  # before it is: SLURM ends this process then
            _scontrol("requeue", job)
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip()
        log.warning("SLURM did not queue job %s again (%s): start it again, it goes on from its checkpoint", job, why)

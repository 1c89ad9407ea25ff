"""The jobs of a run in SLURM's queue: submitted, found again, and asked for their states, however long that takes."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from medmim.common.slurm_client import (
    PassingRefusal,
    QueueRow,
    SlurmJob,
    SubmissionError,
    cancel_jobs,
    query_nodes,
    query_queue,
    submit_script,
)
from medmim.snakemake_hooks import programs
from snakemake_executor_plugin_slurm_medmim.fingerprints import fingerprint_job, run_name
from snakemake_executor_plugin_slurm_medmim.job_states import ACTIVE_STATES, JobStates
from snakemake_executor_plugin_slurm_medmim.ledger import JobLedger
from snakemake_executor_plugin_slurm_medmim.pending_reasons import PendingReasons

RETRY_SECONDS = 5
"""Seconds between polls of a controller that does not answer."""
MAX_POLL_SECONDS = 60
"""Longest time between polls."""
PATIENCE = 0.2
"""Time until the next poll, as a share of the time since the last news: what lasts long may be known a little later."""


def name_jobs(prefix: str | None) -> str:
    """Name of the SLURM jobs of this process's run, after the prefix that a site may want."""
    name = run_name(programs.RUNS[0].folder if programs.RUNS else Path.cwd())
    return f"{prefix}_{name}" if prefix else name


class RunQueue:
    """Jobs of one run. Used by several threads, one of which polls.

    Args:
        name: of the run's jobs
        folder: where the ledger of submitted jobs is kept; it exists
        interval: shortest time between polls in seconds
        is_open: once it says no, nothing is waited for
    """

    def __init__(self, name: str, folder: Path, logger: Any, interval: float, is_open: Callable[[], bool]) -> None:
        self.name = name
        self.states = JobStates(logger)
        self.logger = logger
        self._reasons = PendingReasons(logger)
        self._ledger = JobLedger(folder / f"{self.name}.jobs")
        self._interval = interval
        self._is_open = is_open
        self._clusters = {""}
        self._lock = threading.Lock()
        self._own_jobs: set[SlurmJob] = set()
        self._earlier_jobs: dict[str, SlurmJob] | None = None
        self._done_jobs: set[SlurmJob] = set()
        self._last_poll = self._last_news = time.monotonic()

    def _wait_for_rows(self) -> list[QueueRow] | None:
        """This user's jobs as squeue lists them, as soon as the controllers answer; None where Snakemake ends before."""
        while not self.states.controller_answered(queue_rows := query_queue(sorted(self._clusters))) and self._is_open():
            time.sleep(RETRY_SECONDS)
        self._last_poll = time.monotonic()
        return queue_rows

    # Submission

    def submit_once(
        self, job: Any, cluster: str, build_command: Callable[[str], list[str]], build_script: Callable[[str], str]
    ) -> tuple[SlurmJob, str, bool]:
        """Submit a job, unless the queue has it already.

        Args:
            job: a job of Snakemake's, or a group of jobs
            cluster: name of the cluster for it; empty for the one here
            build_command: makes the sbatch command, given what the job's comment has to end with
            build_script: makes the job's script, given its fingerprint

        Returns: the SLURM job, its fingerprint, and whether an earlier Snakemake had submitted it.
        Raises SubmissionError, or PassingRefusal where it may be accepted later.
        """
        fingerprint = fingerprint_job(job)
        with self._lock:
            self._clusters.add(cluster)
            if self._earlier_jobs is None:
                self._earlier_jobs = self._find_earlier_jobs()
            earlier = self._earlier_jobs.pop(fingerprint, None)
        if earlier:
            self._add_own_job(earlier)
            return earlier, fingerprint, True
        command, script = build_command(fingerprint), build_script(fingerprint)
        try:
            submitted = submit_script(command, script, cluster) or self._require_submitted(fingerprint)
        except PassingRefusal as refusal:
            # The controller may have the job or not: what its queue says decides.
            submitted_meanwhile = self._find_submitted(fingerprint)
            if submitted_meanwhile is None:
                raise refusal from None
            submitted = submitted_meanwhile
        self._add_own_job(submitted)
        self._ledger.add_job(submitted, fingerprint)
        return submitted, fingerprint, False

    def _add_own_job(self, job: SlurmJob) -> None:
        self._own_jobs.add(job)
        self._last_news = time.monotonic()

    def _find_earlier_jobs(self) -> dict[str, SlurmJob]:
        """Jobs that an earlier Snakemake left in the queue, by what they would do."""
        rows = [row for row in self._wait_for_rows() or [] if row.state in ACTIVE_STATES and row.job not in self._own_jobs]
        noted_fingerprints = self._ledger.read_fingerprints()
        here = str(Path.cwd())
        earlier_jobs = {}
        for row in rows:
            if row.name == self.name and (fingerprint := row.comment.rpartition(" ")[2]):
                earlier_jobs[fingerprint] = row.job
            if row.job in noted_fingerprints and (row.name == self.name or row.folder == here):  # ids begin anew at some sites
                earlier_jobs[noted_fingerprints[row.job]] = row.job
        return earlier_jobs

    def _find_submitted(self, fingerprint: str) -> SlurmJob | None:
        """A job of which sbatch has not said that it was accepted; None where the queue does not have it."""
        for row in self._wait_for_rows() or []:
            is_unknown = row.state in ACTIVE_STATES and row.job not in self._own_jobs
            if is_unknown and row.name == self.name and row.comment.endswith(f" {fingerprint}"):
                return row.job
        return None

    def _require_submitted(self, fingerprint: str) -> SlurmJob:
        """The job that sbatch accepted without a word on its id."""
        job = self._find_submitted(fingerprint)
        if job is None:
            raise SubmissionError("sbatch printed no job id, and squeue lists no such job")
        return job

    # Polling

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next poll."""
        now = time.monotonic()
        return now - self._last_poll >= min(max(self._interval, PATIENCE * (now - self._last_news)), MAX_POLL_SECONDS)

    def hurry(self) -> None:
        """Let the next poll be as soon as may be: there is news."""
        self._last_news = time.monotonic()

    def poll(self, jobs: Iterable[SlurmJob]) -> dict[SlurmJob, str] | None:
        """State of each job, as soon as a controller answers; None where Snakemake ends before."""
        rows = self._wait_for_rows()
        if rows is None:
            return None
        jobs = set(jobs)
        states = self.states.update_states(jobs, rows)
        if self.states.have_changed:
            self.hurry()
        self._reasons.say_reasons([row for row in rows if row.job in jobs], time.monotonic())
        self._cancel_requeued(rows)
        return states

    def list_nodes(self, job: SlurmJob) -> list[str]:
        """Nodes that a job ran on; none where there is no accounting database."""
        return query_nodes(job)

    def note_done(self, job: SlurmJob) -> None:
        """Remember that a job has done its work, whatever SLURM makes of it."""
        self._done_jobs.add(job)
        self.hurry()

    def _cancel_requeued(self, rows: Iterable[QueueRow]) -> None:
        """Cancel jobs that are queued again though they are done, as after the loss of a node that computed on."""
        again = [row.job for row in rows if row.job in self._done_jobs and row.state == "PENDING"]
        if again:
            self.logger.info(f"SLURM queued jobs again that are done: {', '.join(map(str, again))}: cancelled.")
            cancel_jobs(again)
            self._done_jobs.difference_update(again)

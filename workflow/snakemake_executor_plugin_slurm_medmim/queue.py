"""The jobs of a run in SLURM's queue: submitted, found again, and asked for their states, however long that takes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medmim.common.slurm_client import SubmissionError, query_nodes, query_queue, submit_script
from medmim.snakemake_hooks import programs
from snakemake_executor_plugin_slurm_medmim.fingerprints import fingerprint_job, run_name
from snakemake_executor_plugin_slurm_medmim.job_states import ACTIVE_STATES, JobStates

RETRY_SECONDS = 5
"""Seconds between polls of a controller that does not answer."""


class RunQueue:
    """Jobs of one run, by the name that they have in SLURM. Used by several threads, one of which polls."""

    def __init__(self, prefix: str | None, logger: Any, is_open: Callable[[], bool]) -> None:
        """Of a run whose jobs' names have a prefix; once `is_open` says no, nothing is waited for."""
        name = run_name(programs.RUNS[0].folder if programs.RUNS else Path.cwd())
        self.name = f"{prefix}_{name}" if prefix else name
        self.states = JobStates(logger)
        self._is_open = is_open

    def _wait_for_rows(self) -> list[list[str]] | None:
        """The jobs as squeue lists them, as soon as a controller answers; None where Snakemake ends before."""
        while not self.states.controller_answered(queue_rows := query_queue(self.name)) and self._is_open():
            time.sleep(RETRY_SECONDS)
        return queue_rows

    def submit_once(self, job: Any, build_command: Callable[[str], list[str]], script: str) -> tuple[str, bool]:
        """Submit a job, unless the queue has it already.

        Args:
            job: a job of Snakemake's, or a group of jobs
            build_command: makes the sbatch command, given what the job's comment has to end with

        Returns: what sbatch answers, and False; or the id of the job that is in the queue, and True.
        """
        fingerprint = fingerprint_job(job)
        while True:
            rows = self._wait_for_rows()
            for job_id, state, comment in rows or []:
                if state in ACTIVE_STATES and comment.endswith(f" {fingerprint}"):
                    return job_id, True
            try:
                return submit_script(build_command(fingerprint), script), False
            except SubmissionError:
                if not self._is_open() or query_queue(self.name) is not None:
                    raise
                # The controller went away meanwhile. It may have the job or not: what its queue says then decides.

    def poll(self, ids: list[str]) -> dict[str, str] | None:
        """State of each job, as soon as a controller answers; None where Snakemake ends before."""
        rows = self._wait_for_rows()
        return None if rows is None else self.states.update_states(ids, rows)

    def list_nodes(self, job_id: str) -> list[str]:
        """Nodes that a job ran on; none where there is no accounting database."""
        return query_nodes(job_id)

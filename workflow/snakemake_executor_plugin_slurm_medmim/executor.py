"""The executor: the public one's, with its own way to submit jobs, to ask for their states, and to wait between.

The public executor loses jobs where it could know better. In this one

- a job that an earlier Snakemake left in the queue is taken over, not run a second time. SLURM itself remembers: jobs of a run
  have one name, and each one's comment ends with a digest of its commands and the content of its inputs;
- while no controller answers, nothing is submitted and no job is given up;
- jobs are asked for by squeue, and by sacct once squeue has forgotten them; one that neither knows has ended, well or not as its
  outputs say;
- "CANCELLED by 0", as sacct writes it, is CANCELLED; preempted or lost with its node, and not requeued, is failed;
- between polls it waits longer as long as nothing changes, and leaves at once when all is done;
- what SLURM says of a failed group of jobs is shown; an account is named only where the profile names one.
"""

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import snakemake_executor_plugin_slurm as public
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import get_job_wildcards, set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_or_get_slurm_job_id, validate_slurm_extra
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

if TYPE_CHECKING:
    from snakemake_executor_plugin_slurm_medmim.queue import RunQueue

FAILED_STATES = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}
MAX_POLL_FACTOR = 6
"""Longest time between polls, in times of the shortest, slurm-medmim-init-seconds-before-status-checks."""

common_settings = public.common_settings


@dataclass
class ExecutorSettings(public.ExecutorSettings):
    """Settings of the public executor."""

    status_command: Optional[str] = field(  # noqa: UP045  Snakemake reads the type by name
        default=None,
        metadata={"help": "Not used: squeue is asked, and sacct for what it has forgotten.", "env_var": False, "required": False},
    )


class Executor(public.Executor):
    """Submits jobs to SLURM and waits for them."""

    @cached_property
    def queue(self) -> "RunQueue":
        """The run's jobs. Made when first asked for: the thread that polls begins before this object is complete.

        Only then is this workflow's library imported: the Snakefile has said by then in which checkout it is.
        """
        from snakemake_executor_plugin_slurm_medmim.queue import RunQueue

        return RunQueue(self.workflow.executor_settings.jobname_prefix, self.logger, lambda: self.wait)

    @property
    def run_uuid(self) -> str:
        """Name of the run's SLURM jobs, the same in every Snakemake that works on its folder."""
        return self.queue.name

    @run_uuid.setter
    def run_uuid(self, value: str) -> None:
        """The public executor names the jobs of each Snakemake anew: not here."""

    # Submission

    def run_job(self, job: Any) -> None:
        """Submit a job or group of jobs, or take it over from the queue. Runs in a thread, which no error may leave."""
        try:
            self._submit_or_take_over(job)
        except Exception as error:
            self._report_job_error_threadsafe(SubmittedJobInfo(job), f"can't be submitted: {error}")

    def _submit_or_take_over(self, job: Any) -> None:
        wildcards = get_job_wildcards(job)
        folder = self.slurm_logdir / f"{'group' if job.is_group() else 'rule'}_{job.name}" / wildcards
        folder.mkdir(parents=True, exist_ok=True)
        comment = f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}"
        script = f"#!/bin/sh\n{self.format_job_exec(job)}\n"
        answer, is_queued = self.queue.submit_once(job, lambda end: self._build_command(job, folder, f"{comment} {end}"), script)
        job_id = validate_or_get_slurm_job_id(answer.strip().split(";")[0], answer)
        log = folder / f"{job_id}.log"
        if is_queued:
            self.logger.info(f"Job {job.jobid} is in the queue as SLURM jobid {job_id} (log: {log}): taken over.")
        else:
            self.logger.info(f"Job {job.jobid} has been submitted with SLURM jobid {job_id} (log: {log}).")
        if cluster := next(filter(None, map(job.resources.get, ("cluster", "clusters", "slurm_cluster"))), None):
            self._submitted_job_clusters.add(cluster)
        self._report_job_submission_threadsafe(SubmittedJobInfo(job, external_jobid=job_id, aux={"slurm_logfile": log}))

    def _build_command(self, job: Any, log_folder: Path, comment: str) -> list[str]:
        """The sbatch command for a job's script."""
        validate_slurm_extra(job)
        params = {
            "run_uuid": self.run_uuid,
            "slurm_logfile": f"{str(log_folder).replace('%', '%%')}/%j.log",
            "comment_str": comment,
            "account": next(self.get_account_arg(job)),
            "partition": self.get_partition_arg(job),
            "workdir": self.workflow.workdir_init,
        }
        settings = self.workflow.executor_settings
        call = get_submit_command(job, params, settings=settings, failed_nodes=self._failed_nodes) + set_gres_string(job)
        return shlex.split(call)

    def get_account_arg(self, job: Any) -> Iterator[str]:
        """Option that names an account: none where the profile has none, as SLURM knows its user's default."""
        yield from super().get_account_arg(job) if job.resources.get("slurm_account") else [""]

    # Polling

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Report jobs that have ended; yield the others."""
        if not active_jobs:
            return
        states = await asyncio.to_thread(self.queue.poll, [job.external_jobid for job in active_jobs])
        for job in active_jobs:
            state = states[job.external_jobid] if states is not None else "RUNNING"
            if state == "NODE_FAIL":
                self._failed_nodes.update(self.queue.list_nodes(job.external_jobid))  # none of them is asked for again
            if state in ("COMPLETED", "UNKNOWN"):
                self._report_success(job)
            elif state in FAILED_STATES or (state == "NODE_FAIL" and not self.workflow.executor_settings.requeue):
                message = f"SLURM-job '{job.external_jobid}' failed, SLURM status is: '{state}'. "
                self.report_job_error(job, msg=message, aux_logs=[str(job.aux["slurm_logfile"])])
            else:
                yield job

    def _report_success(self, job: SubmittedJobInfo) -> None:
        self.report_job_success(job)
        if not self.workflow.executor_settings.keep_successful_logs:
            with suppress(OSError):
                job.aux["slurm_logfile"].unlink()

    async def sleep(self) -> None:
        """Wait until the next poll, longer as long as nothing changes; end at once when Snakemake does."""
        shortest = self.workflow.executor_settings.init_seconds_before_status_checks
        end = time.monotonic() + shortest * min(2**self.queue.states.unchanged_polls, MAX_POLL_FACTOR)
        while self.wait and (remaining_seconds := end - time.monotonic()) > 0:
            await asyncio.sleep(min(remaining_seconds, 1))

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **options: Any) -> None:
        """Print the error of a job; of a group what SLURM says too, which Snakemake leaves out."""
        if not job_info.job.is_group():
            super().print_job_error(job_info, msg, **options)
            return
        rules = ", ".join(sorted({each.rule.name for each in job_info.job.jobs}))
        status = f"SLURM job {job_info.external_jobid or 'not submitted'} of {rules}: {msg}"
        super().print_job_error(job_info, msg, slurm_status=status, **options)
        if msg:
            self.logger.error(status)

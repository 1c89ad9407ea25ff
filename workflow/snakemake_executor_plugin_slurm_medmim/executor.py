"""The executor: the public one's, with its own way to submit jobs, to ask for their states, and to wait between.

The public executor loses jobs where it could know better. In this one

- a job that an earlier Snakemake left in the queue is taken over, not run a second time. SLURM itself remembers: jobs of a run
  have one name, and each one's comment ends with a digest of its commands and the content of its inputs; a file remembers too;
- while no controller answers, nothing is submitted and no job is given up; a refusal that passes is waited for;
- one question to squeue is about all jobs, and sacct is asked for what squeue has forgotten; a job that neither knows has ended,
  well or not as its outputs say. A job that ends well leaves a note, which is seen without a question;
- why jobs are pending is said, and why they failed where they could not say so themselves;
- what is asked for because a job is tried again stays within its partition's limits;
- a job is one Snakemake on its node, in a step of its own, which gets SLURM's signals;
- the user's settings for SLURM's clients, or of a job around this Snakemake, do not mislead it.
"""

import asyncio
import os
import shlex
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import snakemake_executor_plugin_slurm as public
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import get_job_wildcards, set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra
from snakemake_executor_plugin_slurm_jobstep import get_cpu_setting, get_gpu_setting, get_node_setting
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

if TYPE_CHECKING:
    from medmim.common.slurm_client import SlurmJob
    from snakemake_executor_plugin_slurm_medmim.end_notes import EndNotes
    from snakemake_executor_plugin_slurm_medmim.queue import RunQueue

FAILED_STATES = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}
TICK_SECONDS = 0.5
"""Time between looks for the notes of ended jobs."""

common_settings = public.common_settings


@dataclass
class ExecutorSettings(public.ExecutorSettings):
    """Settings of the public executor."""

    status_command: Optional[str] = field(  # noqa: UP045  Snakemake reads the type by name
        default=None,
        metadata={"help": "Not used: squeue is asked, and sacct for what it has forgotten.", "env_var": False, "required": False},
    )

    def __post_init__(self) -> None:
        """Refuse what this executor does not do. Raises WorkflowError."""
        super().__post_init__()
        if self.array_jobs:
            raise WorkflowError(
                f"slurm-medmim-array-jobs ({self.array_jobs}): this executor submits no job arrays: leave the option out. "
                "For short jobs that follow each other the profile has groups"
            )


class Executor(public.Executor):
    """Submits jobs to SLURM and waits for them."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        from medmim.common.slurm_client import clean_environment

        self._default_clusters = clean_environment(os.environ)
        self._postponed: defaultdict[str, deque[Any]] = defaultdict(deque)
        self._postponed_lock = threading.Lock()
        self._resubmitted: set[str] = set()
        self._said_refusals: set[str] = set()
        self._unclear_jobs: set[SlurmJob] = set()
        self._earlier_slurm_ids: defaultdict[str, list[str]] = defaultdict(list)
        # Past the public one's constructor, which forgets SLURM_CONF too and warns of what is supported here.
        super(public.Executor, self).__init__(workflow, logger)

    # Only when these are asked for is this workflow's library imported: the Snakefile has said by then in which checkout it is.
    # The thread that polls begins before this object is complete, and asks for nothing before there is a job.

    @cached_property
    def queue(self) -> "RunQueue":
        """The run's jobs."""
        from snakemake_executor_plugin_slurm_medmim.queue import RunQueue

        settings = self.workflow.executor_settings
        interval = settings.init_seconds_before_status_checks
        self.slurm_logdir.mkdir(parents=True, exist_ok=True)
        return RunQueue(self.run_uuid, self.slurm_logdir, self.logger, interval, lambda: self.wait)

    @cached_property
    def notes(self) -> "EndNotes":
        """What jobs leave when they end."""
        from snakemake_executor_plugin_slurm_medmim.end_notes import EndNotes

        folder = self.slurm_logdir / f"{self.run_uuid}.ended"
        folder.mkdir(parents=True, exist_ok=True)
        return EndNotes(folder)

    @property
    def run_uuid(self) -> str:
        """Name of the run's SLURM jobs, the same in every Snakemake that works on its folder."""
        from snakemake_executor_plugin_slurm_medmim.queue import name_jobs

        return name_jobs(self.workflow.executor_settings.jobname_prefix)

    @run_uuid.setter
    def run_uuid(self, value: str) -> None:
        """The public executor names the jobs of each Snakemake anew: not here."""

    # Submission

    def run_job(self, job: Any) -> None:
        """Submit a job or group of jobs, or take it over from the queue. Runs in a thread, which no error may leave."""
        limits_key = self._name_limits(job)
        with self._postponed_lock:
            if waiting_jobs := self._postponed.get(limits_key):  # refused for now: nothing overtakes them
                waiting_jobs.append(job)
                return
        if not self._try_to_submit(job):
            with self._postponed_lock:
                self._postponed[limits_key].append(job)

    def _name_limits(self, job: Any) -> str:
        """What SLURM's limits on submissions may depend on."""
        names = ("slurm_partition", "slurm_account", "qos", "cluster", "clusters", "slurm_cluster")
        return " ".join(f"{name}={job.resources.get(name)}" for name in names if job.resources.get(name))

    def _try_to_submit(self, job: Any) -> bool:
        """Submit a job, unless it is refused for now; one that can't be submitted is failed."""
        from medmim.common.slurm_client import PassingRefusal

        if self._is_told_to_end():
            self._report_job_error_threadsafe(SubmittedJobInfo(job), "not submitted: Snakemake was told to end")
            return True
        try:
            self._submit_or_take_over(job)
        except PassingRefusal as refusal:
            self._say_refusal(job, refusal)
            return False
        except Exception as error:
            self._report_job_error_threadsafe(SubmittedJobInfo(job), f"can't be submitted: {error}")
        return True

    def _say_refusal(self, job: Any, refusal: Exception) -> None:
        words = str(refusal).partition(" (by sbatch")[0]
        key = f"{self._name_limits(job)}: {words}"
        if key not in self._said_refusals:
            self._said_refusals.add(key)
            self.logger.warning(f"SLURM takes no job for now ({key}): tried again until it does; no retry is used up.")

    def _is_told_to_end(self) -> bool:
        """Whether Snakemake got SIGTERM, and lets only what was submitted end."""
        return getattr(self.workflow.scheduler, "_user_kill", None) is not None  # Snakemake has no public word for it

    def _submit_postponed(self) -> None:
        """Submit jobs again that were refused for now, until one is refused again."""
        with self._postponed_lock:
            keys = [key for key, jobs in self._postponed.items() if jobs and key not in self._resubmitted]
            self._resubmitted.update(keys)
        for key in keys:
            self._job_submission_executor.submit(self._resubmit, key)

    def _resubmit(self, limits_key: str) -> None:
        jobs = self._postponed[limits_key]
        while jobs and self._try_to_submit(jobs[0]):
            with self._postponed_lock:
                jobs.popleft()
        self._resubmitted.discard(limits_key)

    @property
    def _has_postponed(self) -> bool:
        with self._postponed_lock:
            return any(self._postponed.values())

    def _submit_or_take_over(self, job: Any) -> None:
        from medmim.snakemake_hooks.restarts import EARLIER_JOBS_VARIABLE

        wildcards = get_job_wildcards(job)
        folder = self.slurm_logdir / f"{'group' if job.is_group() else 'rule'}_{job.name}" / wildcards
        folder.mkdir(parents=True, exist_ok=True)
        comment = f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}"
        cluster = self._name_cluster(job)

        def build_script(fingerprint: str) -> str:
            earlier_ids = " ".join(self._earlier_slurm_ids[str(job.jobid)])  # this attempt keeps what they have finished
            command = f"export {EARLIER_JOBS_VARIABLE}='{earlier_ids}'\n{self._build_step(job)}"
            return self.notes.add_to_script(command, fingerprint)

        def build_command(fingerprint: str) -> list[str]:
            return self._build_command(job, folder, f"{comment} {fingerprint}")

        slurm_job, fingerprint, is_queued = self.queue.submit_once(job, cluster, build_command, build_script)
        self._earlier_slurm_ids[str(job.jobid)].append(slurm_job.id)
        log = folder / f"{slurm_job.id}.log"
        if is_queued:
            self.logger.info(f"Job {job.jobid} is in the queue as SLURM jobid {slurm_job} (log: {log}): taken over.")
        else:
            self.logger.info(f"Job {job.jobid} has been submitted with SLURM jobid {slurm_job} (log: {log}).")
        aux = {"slurm_logfile": log, "slurm_job": slurm_job, "fingerprint": fingerprint}
        self._report_job_submission_threadsafe(SubmittedJobInfo(job, external_jobid=slurm_job.id, aux=aux))

    def _name_cluster(self, job: Any) -> str:
        """Cluster of a job by its resources, or by the user's environment; empty for the one here."""
        names = filter(None, map(job.resources.get, ("cluster", "clusters", "slurm_cluster")))
        return str(next(names, self._default_clusters))

    def _build_step(self, job: Any) -> str:
        """The command of a job: a Snakemake in a step, which gets signals; that of MPI jobs starts its own steps."""
        command = self.format_job_exec(job)
        if "mpi" in job.resources.keys():  # noqa: SIM118  resources are no mapping
            return str(command)
        is_gpu_job = bool(job.resources.get("gpu")) or "gpu" in str(job.resources.get("gres") or "")
        settings = (get_cpu_setting(job, is_gpu_job), get_gpu_setting(job), get_node_setting(job))
        return f"srun --ntasks=1 --cpu-bind=q {' '.join(filter(None, settings))} {command}"

    @property
    def cores(self) -> str:
        """Cores for the Snakemake of a job: what SLURM gives it, not what there are here."""
        return "all"

    def additional_general_args(self) -> str:
        """Options of the Snakemake of a job: it runs the job itself."""
        return "--executor local"

    def _build_command(self, job: Any, log_folder: Path, comment: str) -> list[str]:
        """The sbatch command for a job's script."""
        validate_slurm_extra(job)
        params = {
            "run_uuid": self.run_uuid,
            "slurm_logfile": f"{str(log_folder).replace('%', '%%')}/%j.log",
            "comment_str": comment,
            "account": self._build_account_option(job),
            "partition": self.get_partition_arg(job),
            "workdir": self.workflow.workdir_init,
        }
        settings = self.workflow.executor_settings
        call = get_submit_command(job, params, settings=settings, failed_nodes=self._failed_nodes) + set_gres_string(job)
        command = shlex.split(call)
        cluster = self._name_cluster(job)
        if cluster and "--clusters" not in command:  # of the environment
            command += ["--clusters", cluster]
        return self._keep_within_limits(job, command) if job.attempt > 1 else command

    def _build_account_option(self, job: Any) -> str:
        """Option that names an account: none where the profile has none, as SLURM knows its user's default."""
        account = job.resources.get("slurm_account")
        return f" -A {shlex.quote(str(account))}" if account else ""

    def _keep_within_limits(self, job: Any, command: list[str]) -> list[str]:
        """Ask for no more than a job may have, where it is tried again with more."""
        from medmim.common.slurm_client import query_partition_limits
        from snakemake_executor_plugin_slurm_medmim.requests import clamp_request

        if "-p" not in command:
            return command
        partition = command[command.index("-p") + 1]
        limits = query_partition_limits(partition, self._name_cluster(job))
        command, changes = clamp_request(command, limits)
        if changes:
            asked = " and ".join(changes)
            self.logger.info(f"Job {job.jobid} asks in attempt {job.attempt} for {asked}, the limit of partition {partition}.")
        return command

    # Polling

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Report jobs that have ended; yield the others."""
        unfinished = [job for job in active_jobs if not self._report_by_note(job)]
        is_due = (bool(unfinished) or self._has_postponed) and self.queue.is_due
        states = await asyncio.to_thread(self.queue.poll, [job.aux["slurm_job"] for job in unfinished]) if is_due else None
        if is_due or self._is_told_to_end():
            self._submit_postponed()
        for job in unfinished:
            slurm_job: SlurmJob = job.aux["slurm_job"]
            state = states[slurm_job] if states is not None else "RUNNING"
            if state == "UNKNOWN" and self.notes.read_status(slurm_job, job.aux["fingerprint"]):
                state = "FAILED"
            if state == "NODE_FAIL":
                self._failed_nodes.update(self.queue.list_nodes(slurm_job))  # none of them is asked for again
            if state in ("COMPLETED", "UNKNOWN"):
                self._report_success(job)
            elif state in FAILED_STATES or (state == "NODE_FAIL" and not self.workflow.executor_settings.requeue):
                await self._report_failure(job, state)
            else:
                yield job

    def _report_by_note(self, job: SubmittedJobInfo) -> bool:
        """Report a job that has ended well by its note. What any other note means, SLURM has to say."""
        slurm_job, fingerprint = job.aux["slurm_job"], job.aux["fingerprint"]
        status = self.notes.read_status(slurm_job, fingerprint)
        if status is not None and status != 0 and slurm_job not in self._unclear_jobs:
            self._unclear_jobs.add(slurm_job)  # once: a training that SLURM has queued again goes on for long
            self.queue.hurry()
        if status != 0:
            return False
        self.queue.note_done(slurm_job)
        self._report_success(job)
        return True

    def _report_success(self, job: SubmittedJobInfo) -> None:
        self.notes.remove(job.aux["slurm_job"], job.aux["fingerprint"])
        self.report_job_success(job)
        if not self.workflow.executor_settings.keep_successful_logs:
            with suppress(OSError):
                job.aux["slurm_logfile"].unlink()

    async def _report_failure(self, job: SubmittedJobInfo, state: str) -> None:
        from snakemake_executor_plugin_slurm_medmim.failures import explain_failure

        self.notes.remove(job.aux["slurm_job"], job.aux["fingerprint"])
        log = job.aux["slurm_logfile"]
        message = await asyncio.to_thread(explain_failure, job.aux["slurm_job"], state, log)
        self.report_job_error(job, msg=f"{message}\n", aux_logs=[str(log)])

    async def sleep(self) -> None:
        """Wait until the next poll, until a job has left a note, or until Snakemake ends."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if not self.wait or not self.active_jobs or self.queue.is_due or self.notes.has_new():
                return

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel jobs, as Snakemake was interrupted."""
        from medmim.common.slurm_client import cancel_jobs

        if fault := cancel_jobs([job.aux["slurm_job"] for job in active_jobs]):
            self.logger.warning(f"Jobs could not be cancelled: {fault}: see squeue --me, and scancel them.")

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

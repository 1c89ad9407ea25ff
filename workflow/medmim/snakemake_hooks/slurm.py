"""Snakemake's SLURM executor, made to survive what clusters do.

The executor's plugin (2.8.0) loses jobs where it could know better, so this goes around some of its functions in the process
that plans:

- a job that an earlier Snakemake left in the queue is taken over, not run a second time. SLURM itself remembers: jobs of a run
  have one name, and each one's comment ends with a digest of its commands and the content of its inputs;
- while no controller answers, nothing is submitted and no job is given up;
- jobs are asked for by squeue, and by sacct once squeue has forgotten them; one that neither knows has ended, well or not as its
  outputs say;
- "CANCELLED by 0", as sacct writes it, is CANCELLED; preempted or lost with its node, and not requeued, is failed;
- between questions it waits longer as long as nothing changes, and leaves at once when all is done;
- what SLURM says of a failed group of jobs is shown; an account is named only where the profile names one.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from medmim.common import files
from medmim.common.slurm_client import query_accounting, query_queue
from medmim.provenance import job_record

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
RETRY_SECONDS = 5
"""Seconds between questions to a controller that does not answer."""
NEVER_FORGET_SECONDS = 1 << 31
MAX_POLL_FACTOR = 6
"""Longest time between questions, in times of the shortest, slurm-init-seconds-before-status-checks."""


def run_name(results: Path) -> str:
    """Name of all SLURM jobs of a run: the same in every Snakemake that works on this folder."""
    return f"{results.name}-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:12]}"


def fingerprint_job(job: Any) -> str:
    """Hex digest of what a Snakemake job, or group of jobs, would do: its commands, and the content of what it reads."""
    jobs = list(job.jobs) if job.is_group() else [job]
    output_paths = {str(path) for each in jobs for path in each.output}
    input_paths = sorted({str(path) for each in jobs for path in each.input} - output_paths)
    content = [sorted(each.shellcmd or each.name for each in jobs), [(path, _hash_artifact(Path(path))) for path in input_paths]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _hash_artifact(path: Path) -> str:
    """sha256 of an artifact as its sidecar has it, which is quick, or of another file."""
    try:
        output_records = job_record.output_files(job_record.read_record(job_record.sidecar_path(path)))
        return next(str(o["sha256"]) for o in output_records if Path(o["path"]) == path)
    except (OSError, ValueError, StopIteration):
        return files.hash_file(path)


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


def patch_executor(workflow: Any, results: Path) -> None:
    """Mend, in the process that plans, the executor of a workflow that runs on SLURM."""
    import snakemake_executor_plugin_slurm as plugin
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

    if not workflow.is_main_process:
        return
    executor, name = plugin.Executor, run_name(results)
    original_post_init, original_run_job, original_check_jobs = (
        executor.__post_init__,
        executor.run_job,
        executor.check_active_jobs,
    )
    original_print_error, original_account_arg, original_submit_command = (
        executor.print_job_error,
        executor.get_account_arg,
        plugin.get_submit_command,
    )
    plugin.uuid = SimpleNamespace(uuid4=lambda: name)  # the plugin names the jobs of each Snakemake anew

    def post_init(self: Any, *arguments: Any, **options: Any) -> None:
        self.states, self.active_ids = JobStates(self.logger), []
        original_post_init(self, *arguments, **options)

        async def query_job_status(_: str, __: Any) -> tuple[dict[str, str] | None, float | None]:
            start = time.time()
            while not self.states.controller_answered(queue_rows := await asyncio.to_thread(query_queue, self.run_uuid)):
                if not self.wait:
                    return None, None
                await asyncio.sleep(RETRY_SECONDS)
            return await asyncio.to_thread(self.states.update_states, self.active_ids, queue_rows), time.time() - start

        plugin.query_job_status = query_job_status

    def submit_command(job: Any, params: dict[str, Any], *arguments: Any, **options: Any) -> str:
        return str(
            original_submit_command(
                job, {**params, "comment_str": f"{params['comment_str']} {fingerprint_job(job)}"}, *arguments, **options
            )
        )

    def run_job(self: Any, job: Any) -> None:
        try:
            job_fingerprint = fingerprint_job(job)
            while not self.states.controller_answered(queue_rows := query_queue(self.run_uuid)) and self.wait:
                time.sleep(RETRY_SECONDS)
        except Exception as error:
            self._report_job_error_threadsafe(SubmittedJobInfo(job), f"can't be submitted: {error}")
            return
        queued_ids = [
            each
            for each, state, comment in queue_rows or []
            if state in ACTIVE_STATES and comment.endswith(f" {job_fingerprint}")
        ]
        if not queued_ids:
            original_run_job(self, job)
            return
        folder = self.slurm_logdir / (f"group_{job.name}" if job.is_group() else f"rule_{job.name}")
        log = folder / plugin.get_job_wildcards(job) / f"{queued_ids[0]}.log"
        self.logger.info(f"Job {job.jobid} is in the queue as SLURM jobid {queued_ids[0]} (log: {log}): taken over.")
        self._report_job_submission_threadsafe(SubmittedJobInfo(job, external_jobid=queued_ids[0], aux={"slurm_logfile": log}))

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        self.active_ids = [each.external_jobid for each in active_jobs]
        async for each in original_check_jobs(self, active_jobs):
            yield each

    async def sleep(self: Any) -> None:
        shortest = self.workflow.executor_settings.init_seconds_before_status_checks
        end = time.monotonic() + shortest * min(2**self.states.unchanged_polls if self.states else 1, MAX_POLL_FACTOR)
        while self.wait and (remaining_seconds := end - time.monotonic()) > 0:
            await asyncio.sleep(min(remaining_seconds, 1))

    def print_job_error(self: Any, job_info: Any, msg: str | None = None, **options: Any) -> None:
        original_print_error(self, job_info, msg, **options)
        if msg and job_info.job.is_group():
            rules = ", ".join(sorted({each.rule.name for each in job_info.job.jobs}))
            self.logger.error(f"SLURM job {job_info.external_jobid or 'not submitted'} of {rules}: {msg}")

    def get_account_arg(self: Any, job: Any) -> Iterator[str]:
        yield from (
            original_account_arg(self, job) if job.resources.get("slurm_account") else [""]
        )  # SLURM knows its user's default

    executor.states = None  # its thread begins before post_init
    executor.__post_init__ = post_init
    executor.sleep = sleep
    executor.print_job_error = print_job_error
    executor.get_account_arg = get_account_arg
    executor.run_job = run_job
    executor.check_active_jobs = check_active_jobs
    plugin.get_submit_command = submit_command
    plugin.get_min_job_age = lambda: NEVER_FORGET_SECONDS  # else it asks for it each time, to choose between squeue and sacct

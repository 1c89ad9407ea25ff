"""All that is patched of Snakemake: what runs of our own jobs, its lock, how it calls itself, and how it answers SIGTERM.

Snakemake has no hook between making its DAG and deciding what of it is needed. So the method that decides is wrapped: before it,
stale jobs of ours are forced and those in the cache are put in place; during it, times and what .snakemake remembers
say nothing of our jobs. For every other rule Snakemake's own triggers hold, as the user set them.
The versions that this was tested with are in medmim.snakemake_hooks.versions.
"""

import _thread
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from medmim.common.process_setup import prepare_process
from medmim.provenance import code_digest
from medmim.provenance.cache import Cache
from medmim.provenance.config_file import write_config
from medmim.provenance.staleness import NOT_MADE_YET, Decision, PlannedJob, decide_jobs, find_unpinned_models
from medmim.snakemake_hooks import working_directory_lock
from medmim.snakemake_hooks.programs import CONFIGS, ProgramCommand, Run
from medmim.snakemake_hooks.restarts import find_finished_jobs, list_earlier_slurm_jobs, read_common_record
from medmim.snakemake_hooks.working_directory_lock import LockOwner


@cache
def install_patches() -> None:
    """Patch Snakemake in this process, once."""
    _prepare_process()
    _require_notes_folder()
    _patch_lock()
    _patch_decision()
    _patch_cleanup()
    _patch_sigterm()
    _patch_job_commands()


def is_own_job(job: Any) -> bool:
    """Whether a Snakemake job starts a program of this workflow."""
    return isinstance(job.rule.shellcmd, ProgramCommand)


def _prepare_process() -> None:
    """Let Snakemake's handlers write where a reader may be gone, as after `snakemake -n | head`, and its log any character."""
    from snakemake.logging import logger

    names_by_stream = {sys.stdout: "stdout", sys.stderr: "stderr"}
    prepare_process()
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        elif isinstance(handler, logging.StreamHandler) and handler.stream in names_by_stream:
            handler.setStream(getattr(sys, names_by_stream[handler.stream]))


def _find_unwritable(path: Path) -> Path | None:
    """The file or folder that keeps this user from writing a path, if any: itself, or the folder that it would be made in."""
    path = path.absolute()
    while not os.access(path, os.F_OK) and path != path.parent:
        path = path.parent
    return None if os.access(path, os.W_OK) else path


def _require_notes_folder() -> None:
    """Stop where Snakemake can't write its notes, which it does for a dry run too, with one line."""
    for folder in ("iocache", "locks", "metadata", "incomplete"):
        if blocked := _find_unwritable(Path(".snakemake", folder)):
            raise SystemExit(
                f"Error: {blocked}: may not be written by this user, and Snakemake keeps notes here even for a dry run: "
                "run it in a folder of your own (--directory), or let its owner share this one"
            )


def _require_writable_results(run: Run, decision: Decision) -> None:
    """Raise where jobs have to write and may not, before Snakemake finds out by a traceback."""
    from snakemake.exceptions import WorkflowError

    paths = [run.folder / "logs", *(path.parent for job in decision.to_run for path in job.outputs)]
    if decision.to_run and (blocked := next(filter(None, map(_find_unwritable, paths)), None)):
        raise WorkflowError(
            f"{blocked}: may not be written by this user, and {len(decision.to_run)} jobs have to: let its owner share it, "
            "or set results of your own in the config"
        )


def _patch_lock() -> None:
    """Let the lock of a Snakemake that is certainly gone not stop this one, and say whose lock does.

    The lock is taken under another lock, so that of several Snakemakes that find the same one left behind one goes on.
    """
    from snakemake.exceptions import LockException
    from snakemake.logging import logger
    from snakemake.persistence.file import FilePersistence

    this_process = LockOwner.from_current_process()
    original_lock, original_locked = FilePersistence.lock, FilePersistence.locked

    def find_ends(persistence: Any) -> dict[LockOwner, str] | None:
        return working_directory_lock.find_ends(Path(persistence._lockdir), this_process)

    def is_locked(persistence: Any) -> bool:
        return bool(original_locked.fget(persistence)) and find_ends(persistence) is None

    def take_lock(persistence: Any, is_alone: bool) -> AbstractContextManager[None]:
        if ends := original_locked.fget(persistence) and find_ends(persistence):
            if not is_alone:
                raise LockException()
            for owner, end in ends.items():
                logger.info(f"The lock of {owner} is released: {end}")
            working_directory_lock.remove_locks(Path(persistence._lockdir))
        if not original_locked.fget(persistence):
            working_directory_lock.announce_locks(Path(persistence._lockdir), this_process)
        return original_lock(persistence)

    @contextmanager
    def lock(persistence: Any) -> Iterator[None]:
        folder = Path(persistence._lockdir)
        with ExitStack() as held_lock:
            with working_directory_lock.exclude_others(folder.with_name(working_directory_lock.TAKE_OVER_NAME)) as is_alone:
                try:
                    held_lock.enter_context(take_lock(persistence, is_alone))
                except LockException as error:
                    owners = working_directory_lock.find_owners(folder)
                    names = ", ".join(str(owner or "a Snakemake that is not recorded") for owner in owners)
                    error.args = (f"{error}\nIt is held by {names}.",)
                    raise
            yield

    FilePersistence.lock, FilePersistence.locked = lock, property(is_locked)


def _patch_sigterm() -> None:
    """Let SIGTERM end a Snakemake whatever it is at.

    Its handler waits for a lock which the thread that it interrupts may hold, and then for ever.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    def exit_gracefully(self: Any, *_: object) -> None:
        self._user_kill = "graceful"
        _thread.start_new_thread(self._open_jobs.release, ())  # it has a lock too, as has threading.Thread

    JobScheduler.exit_gracefully = exit_gracefully


def _patch_job_commands() -> None:
    """Let the commands with which Snakemake starts itself for a job stand any path and any value of --config.

    It writes them as Python would, in double quotes where they hold a single one, in which a shell runs what $( ) holds; and
    the interpreter as it is, blanks and all.
    """
    from snakemake_interface_executor_plugins import utils
    from snakemake_interface_executor_plugins.executors.real import RealExecutor

    original = RealExecutor.format_job_exec

    def format_job_exec(executor: Any, job: Any) -> str:
        executor.get_python_executable = lambda: shlex.quote(type(executor).get_python_executable(executor))
        return str(original(executor, job))

    RealExecutor.format_job_exec = format_job_exec
    utils.repr = lambda value: shlex.quote(value) if isinstance(value, str) else repr(value)


def _patch_cleanup() -> None:
    """Let outputs of our jobs stay where a job fails: they are whole, or not there at all.

    Where a group of jobs fails Snakemake deletes the outputs of those too that were done.
    """
    from snakemake.jobs import Job

    original = Job.cleanup

    async def cleanup(job: Any, skip_outputs: Any) -> None:
        if not is_own_job(job) or read_common_record(job.output) is None:
            await original(job, skip_outputs)

    Job.cleanup = cleanup


def _patch_decision() -> None:
    from snakemake.dag import DAG
    from snakemake.exceptions import WorkflowError
    from snakemake.jobs import Job

    original_update, original_mintime = DAG.update_needrun, Job.output_mintime

    async def update_needrun(dag: Any, create_inventory: bool = False) -> None:
        if create_inventory:  # the DAG is whole for the first time
            _mute_recorded_changes(dag.workflow.persistence)
        try:
            if dag.workflow.is_main_process:
                _decide_own_jobs(dag, is_first=create_inventory)
            elif create_inventory:
                _skip_finished_jobs(dag)
        except OSError as error:
            raise WorkflowError(
                f"{error.filename}: {error.strerror}: the run's files must be readable, and writable to run it"
            ) from None
        await original_update(dag, create_inventory)

    async def output_mintime(job: Any) -> float | None:
        if is_own_job(job):
            return math.inf  # No input is newer. None would let Snakemake take the time of a job that reads this one's output.
        return await original_mintime.fget(job)

    DAG.update_needrun = update_needrun
    Job.output_mintime = property(output_mintime)


def _mute_recorded_changes(persistence: Any) -> None:
    """Let what .snakemake remembers of our jobs differ without consequence."""
    from snakemake.persistence import NO_PARAMS_CHANGE

    def mute(name: str, unchanged: object) -> None:
        original = getattr(persistence, name)

        def find_changes(job: Any, file: object = None) -> Any:
            return unchanged if is_own_job(job) else original(job, file=file)

        setattr(persistence, name, find_changes)

    mute("params_changed", NO_PARAMS_CHANGE)
    for name in ("input_changed", "code_changed", "software_stack_changed"):
        mute(name, ())


def _decide_own_jobs(dag: Any, is_first: bool) -> None:
    """Force our stale jobs and take from the cache what it has of them; each job is decided once.

    Args:
        is_first: whether the DAG is whole for the first time; later come only jobs that a checkpoint has added.
    """
    workflow = dag.workflow
    runs = workflow.executor_plugin is not None and not workflow.touch  # not so of --lint, --unlock and the like
    writes = runs and not workflow.dryrun and not (is_first and workflow.persistence.locked)
    may_use_cache = runs and is_first and not (dag.forcerules or dag.forcefiles)
    take = may_use_cache and writes
    jobs = [job for level in dag.toposorted() for job in level]
    if writes:
        _write_configs(jobs)
    taken_paths: set[str] = set()
    for run, plan in _plan_by_run(_claim_undecided_jobs(dag, jobs)).items():
        decision = decide_jobs(plan, run.folder, run.cache if may_use_cache else None, take)
        _log_decision(decision, take)
        if writes:
            _require_writable_results(run, decision)
        if take and run.cache and (decision.to_run or decision.from_cache) and run.cache.must_copy(run.folder):
            _log_copies(run.cache, run.folder)
        dag.forcefiles.update(str(job.outputs[0]) for job in decision.to_run)
        taken_paths.update(str(path) for job in decision.from_cache for path in job.outputs)
    for path in taken_paths if take else ():
        workflow.iocache.exists_local[path] = True  # Snakemake looked before
    _announce_new_inputs(dag, jobs, taken_paths, take)


def _skip_finished_jobs(dag: Any) -> None:
    """Force no job that was done before this SLURM job was started once more, unless it follows from one that runs."""
    if not (slurm_ids := list_earlier_slurm_jobs()):
        return
    jobs = [job for level in dag.toposorted() for job in level if job in dag.targetjobs and job.output and is_own_job(job)]
    for run, plan in _plan_by_run(jobs).items():
        for job in find_finished_jobs(plan, run.folder, slurm_ids):
            dag.forcefiles.difference_update(map(str, job.outputs))


def _claim_undecided_jobs(dag: Any, jobs: Iterable[Any]) -> list[Any]:
    """Our jobs with outputs that no earlier call has returned."""
    decided: set[str] = dag.__dict__.setdefault("_medmim_decided", set())
    undecided = [job for job in jobs if job.output and is_own_job(job) and str(job.output[0]) not in decided]
    decided.update(str(job.output[0]) for job in undecided)
    return undecided


def _plan_by_run(jobs: Iterable[Any]) -> dict[Run, list[PlannedJob]]:
    """Planned jobs by the run that they belong to: another Snakefile may import this workflow more than once."""
    plans: dict[Run, list[PlannedJob]] = {}
    for job in jobs:
        plans.setdefault(job.rule.shellcmd.run, []).append(_plan_job(job))
    return plans


def _write_configs(jobs: Iterable[Any]) -> None:
    """Write the part of the config that each program of ours will read."""
    for job in filter(is_own_job, jobs):
        write_config(job.rule.shellcmd.config_path(job.params.cfg), CONFIGS[job.params.cfg])


def _log_decision(decision: Decision, take: bool) -> None:
    from snakemake.logging import logger

    for job, reason in decision.to_run.items():
        if reason != NOT_MADE_YET:
            logger.info(f"{job.name}: {reason}")
    if unpinned_models := find_unpinned_models(decision.to_run):
        logger.warning(
            f"No revision is set for {', '.join(unpinned_models)}: the newest commit on the hub is taken, and recorded in "
            "models/NAME/files.parquet.prov.json; pin it as models.NAME.revision"
        )
    for job, reason in decision.from_cache.items():
        logger.info(f"{job.name}: {reason}: {'taken' if take else 'can be taken'} from the cache")


def _log_copies(cache: Cache, folder: Path) -> None:
    from snakemake.logging import logger

    logger.warning(
        f"The cache {cache.folder} is on another file system than {folder}: outputs are copied, and take their space twice; "
        "set cache.folder to a folder on that of the results to have them linked"
    )


def _announce_new_inputs(dag: Any, jobs: Iterable[Any], paths: set[str], taken: bool) -> None:
    """Let rules that are not ours see inputs from the cache, which come with the time at which they were first made."""
    for job in jobs:
        if not job.output or is_own_job(job) or not (new_inputs := paths.intersection(map(str, job.input))):
            continue
        if not taken:
            dag.forcefiles.update(map(str, job.output))
        for path in new_inputs if taken else ():
            os.utime(path)


def _plan_job(job: Any) -> PlannedJob:
    from snakemake.utils import format

    wildcards = "".join(f" {value}" for value in job.wildcards)
    code = code_digest.CODES_BY_SHA256[job.params.code]
    names = {name: getattr(job, name) for name in ("input", "output", "params", "wildcards", "log")}
    shell = format(str(job.rule.shellcmd), threads=1, **names)  # job.shellcmd wants ids, which come later
    cfg = CONFIGS[job.params.cfg]
    return PlannedJob.from_shell_command(f"{job.rule.name}{wildcards}", shell, cfg, code, job.input, job.output)

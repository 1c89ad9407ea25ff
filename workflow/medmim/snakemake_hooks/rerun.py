"""Lets content, not times, decide what a Snakemake workflow runs."""

from pathlib import Path
from typing import Any

from medmim.provenance import code_digest
from medmim.provenance.cache import Cache
from medmim.provenance.staleness import NOT_MADE_YET, PlannedJob, decide_jobs, find_unpinned_models


def install_planner(workflow: Any, results: Path, cache: Cache | None) -> None:
    """Let this module decide what a Snakemake workflow runs, in the process that plans it.

    Snakemake has no hook between making its DAG and deciding what of it is needed, so this goes around the method that
    decides: stale jobs are forced, and times of files say nothing.
    """
    from snakemake.dag import DAG
    from snakemake.jobs import Job
    from snakemake.logging import logger
    from snakemake.settings.types import RerunTrigger
    from snakemake.utils import format

    original_update = DAG.update_needrun

    async def update_needrun(dag: Any, create_inventory: bool = False) -> None:
        if create_inventory:  # once, when the DAG is whole
            dag.workflow.dag_settings.rerun_triggers = frozenset({RerunTrigger.MTIME})  # and times are none, below
            planned = []
            for job in (j for level in dag.toposorted() for j in level if j.output and j.is_shell):
                wildcards = "".join(f" {value}" for value in job.wildcards)
                code = code_digest.CODES_BY_SHA256[job.params.code]
                names = {n: getattr(job, n) for n in ("input", "output", "params", "wildcards", "log")}
                shell = format(job.rule.shellcmd, threads=1, **names)  # job.shellcmd wants ids, which come later
                planned.append(PlannedJob.from_shell_command(f"{job.rule.name}{wildcards}", shell, code, job.input, job.output))
            runs = workflow.executor_plugin is not None and not workflow.touch and not (dag.forcerules or dag.forcefiles)
            take = runs and not workflow.dryrun and not dag.workflow.persistence.locked
            decision = decide_jobs(planned, results, cache if runs else None, take)
            dag.forcefiles.update(str(job.outputs[0]) for job in decision.to_run)
            for job, reason in decision.to_run.items():
                if reason != NOT_MADE_YET:
                    logger.info(f"{job.name}: {reason}")
            if unpinned_models := find_unpinned_models(decision.to_run):
                logger.warning(
                    f"No revision is set for {', '.join(unpinned_models)}: the newest commit on the hub is taken, and "
                    "recorded in "
                    "models/NAME/files.parquet.prov.json; pin it as models.NAME.revision"
                )
            for job, reason in decision.from_cache.items():
                logger.info(f"{job.name}: {reason}: {'taken' if take else 'can be taken'} from the cache")
                for path in job.outputs if take else ():
                    workflow.iocache.exists_local[str(path)] = True  # Snakemake looked before
        await original_update(dag, create_inventory)

    async def ignore_time(_: Any) -> None:
        return None

    if workflow.is_main_process:
        DAG.update_needrun = update_needrun
        Job.output_mintime = property(ignore_time)

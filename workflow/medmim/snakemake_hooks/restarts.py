"""What a SLURM job that runs again has made already: SLURM has queued it again, or it is a further attempt after a failure.

The records beside the outputs name the SLURM job that made them. So nothing is to be remembered elsewhere, and no clocks of
nodes are compared.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from medmim.common.errors import SidecarError
from medmim.provenance.job_record import Record, read_record, sidecar_path
from medmim.provenance.staleness import PlannedJob, decide_jobs

EARLIER_JOBS_VARIABLE = "MEDMIM_EARLIER_SLURM_JOBS"
"""Environment variable with the ids of the SLURM jobs that were earlier attempts at this one, with blanks between."""


def list_earlier_slurm_jobs() -> set[str]:
    """Ids of SLURM jobs that have begun the work of this one before: itself, where it was queued again, and earlier attempts."""
    earlier_ids = set(os.environ.get(EARLIER_JOBS_VARIABLE, "").split())
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        earlier_ids.add(os.environ["SLURM_JOB_ID"])
    return earlier_ids


def find_finished_jobs(jobs: Iterable[PlannedJob], results: Path, slurm_ids: set[str]) -> list[PlannedJob]:
    """Jobs, producers coming before consumers, whose outputs one of some SLURM jobs has made, as they would be made now."""
    jobs = list(jobs)
    to_run = decide_jobs(jobs, results).to_run
    return [job for job in jobs if job not in to_run and _find_slurm_id(read_common_record(job.outputs)) in slurm_ids]


def read_common_record(outputs: Iterable[str | Path]) -> Record | None:
    """The record of a job's outputs; None unless each is there whole, made together with the others."""
    records = []
    with suppress(OSError, SidecarError):
        for output in map(Path, outputs):
            output.stat()
            records.append(read_record(sidecar_path(output)))
        return records[0] if records and all(record == records[0] for record in records) else None
    return None


def _find_slurm_id(record: Record | None) -> str | None:
    """Id of the SLURM job that made outputs here; None of those from the cache, whose record is of another place."""
    return None if record is None or "restored" in record else record["machine"].get("slurm", {}).get("SLURM_JOB_ID")

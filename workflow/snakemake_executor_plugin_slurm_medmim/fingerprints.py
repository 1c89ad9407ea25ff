"""How SLURM remembers what its jobs are: the name of a run's jobs, and a digest of what a job would do, in its comment."""

import hashlib
import json
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.provenance import job_record


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

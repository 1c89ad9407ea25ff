"""Why a job failed, as SLURM knows it: said where the job could not say so itself."""

import re
from pathlib import Path

from medmim.common.slurm_client import SlurmJob, query_peak_memory, query_requested_memory

MAX_LINES = 10
"""Lines shown of a job's log."""
MEMORY_WORDS = re.compile(r"oom|out.of.memory|memory limit|SIGKILL|Killed", re.IGNORECASE)
"""In a job's state or log: it may have had too much memory."""
EXCESS = re.compile(r"exceeded memory limit \((\d+) > \d+\)")
"""How SLURM says in a job's log, in bytes, what the job had."""

LAST_WORDS = re.compile(
    r"Shutting down,|Storing output|Elapsed time|--keep-incomplete|WorkflowError:$|At least one job|Will exit after"
    r"|Exiting because|Complete log|For further error details|srun: error: .*: Exited with exit code|\s+\(command exited with"
)
"""With what Snakemake and srun end the log of every job that fails."""


def explain_failure(job: SlurmJob, state: str, log: Path) -> str:
    """Say how a job ended: its state, the memory it had and asked for where that may be the reason, the end of SLURM's log."""
    tail = read_tail(log)
    words = [f"SLURM-job '{job.id}' failed, SLURM status is: '{state}'."]
    if MEMORY_WORDS.search(f"{state} {tail}"):
        words.append(_describe_memory(job, tail))
    words.append(f"The end of {log}:\n{tail}" if tail else f"SLURM wrote no log ({log}): its prolog or its node may be at fault.")
    return " ".join(words)


def _describe_memory(job: SlurmJob, tail: str) -> str:
    requested, peak = query_requested_memory(job), query_peak_memory(job)
    if excess := EXCESS.search(tail):
        peak = max(peak or 0, int(excess[1]) / 2**20)
    had = f"had at most {peak:.0f}M" if peak else "nothing recorded how much it had"
    return f"Of memory it asked for {requested or 'the default'} and {had}: see mem_mb in the profile."


def read_tail(log: Path) -> str:
    """The last lines of a log that say something; empty where there are none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip() and not LAST_WORDS.match(line)][-MAX_LINES:])

"""SLURM's clients: squeue, sacct, scontrol and sbatch are called here and nowhere else."""

import csv
import os
import re
import shlex
import subprocess
from datetime import UTC, datetime
from typing import Any

CLIENT_TIMEOUT_SECONDS = 10
"""Seconds to wait for an answer that is only for the books: clients block while the controller is away."""
CONTROLLER_TIMEOUT_SECONDS = 60
"""Seconds to wait for an answer that jobs depend on."""
MIB_PER_UNIT = {"": 2**-20, "K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}
"""MiB in SLURM's units of memory."""


def query_client(command: list[str]) -> list[list[str]] | None:
    """Rows of what a SLURM client prints with | between fields, or None where it has no answer."""
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=CONTROLLER_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if completed.returncode != 0:
        return None
    return [[field.strip() for field in row] for row in csv.reader(completed.stdout.splitlines(), delimiter="|") if row]


def query_queue(name: str) -> list[list[str]] | None:
    """Id, state and comment of every job of a name that the controller knows."""
    return query_client(["squeue", "--noheader", "--states=all", "--name", name, "--format", "%i|%T|%k"])


def query_accounting(ids: list[str]) -> list[list[str]]:
    """Id and state of jobs as the accounting database has them; none where there is no database."""
    return query_client(["sacct", "-X", "--noheader", "--parsable2", "--format=JobIDRaw,State", "--jobs", ",".join(ids)]) or []


def query_nodes(job: str) -> list[str]:
    """Nodes that a job ran on, as the accounting database has them; none where there is no database."""
    rows = query_client(["sacct", "-X", "--noheader", "--parsable2", "--format=NodeList", "--jobs", job]) or []
    return [row[0] for row in rows if row[0]]


class SubmissionError(Exception):
    """A job that sbatch did not accept, or of which it is not known whether it did."""


def submit_script(command: list[str], script: str) -> str:
    """Submit a script by an sbatch command; what sbatch prints. Raises SubmissionError."""
    try:
        completed = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=CONTROLLER_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SubmissionError(str(error)) from None
    if completed.returncode != 0 or "submission failed" in completed.stderr:
        raise SubmissionError(f"{completed.stderr.strip()} (by {shlex.join(command)})")
    return completed.stdout


def run_slurm_client(*command: str) -> str:
    """What a client of SLURM's prints, its times being UTC; nothing where it is not there, fails, or does not answer in time."""
    try:
        completed = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,  # the script that runs us may come from there
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT_SECONDS,
            check=True,
            env=os.environ | {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"},
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return completed.stdout


def parse_utc_time(text: str) -> str | None:
    """A time in such an answer as all others here are written; None for Unknown and the like."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).isoformat(timespec="milliseconds")
    except ValueError:
        return None


def query_allocation(job: str) -> dict[str, Any]:
    """What SLURM says of one of its jobs; just its id where there is no answer."""
    try:
        return {"id": job, **_parse_job_line(run_slurm_client("scontrol", "--oneliner", "--details", "show", "job", job), job)}
    except (KeyError, ValueError):
        return {"id": job}


def _parse_job_line(text: str, job: str) -> dict[str, Any]:
    """Read a job's line, of which an array has one for each task. Raises KeyError or ValueError."""
    line = next((line for line in text.splitlines() if line.startswith(f"JobId={job} ")), "")
    fields = dict(reversed(re.findall(r"(?:^|\s)([\w/:]+)=(\S*)", line)))  # reversed: what a comment says does not count
    allocated_tres = dict(re.findall(r"([\w/]+)=([^,]*)", fields.get("AllocTRES") or fields["TRES"]))
    gpus = re.findall(r"(?:^|,)gpu(?::[^,:(]+)*:(\d+)", fields.get("JOB_GRES", ""))  # TRES has no GPUs without a database
    nodes = int(fields["NumNodes"].split("-")[0])
    return {
        "restarts": int(fields["Restarts"]),
        "submitted": parse_utc_time(fields["SubmitTime"]),
        "started": parse_utc_time(fields["StartTime"]),
        "limit_seconds": parse_duration(fields["TimeLimit"]),
        "partition": fields["Partition"],
        "nodes": nodes,
        "cpus": int(fields["NumCPUs"].split("-")[0]),
        "memory_mb": round(parse_memory_size(allocated_tres["mem"]) / nodes) if "mem" in allocated_tres else None,
        "gpus": int(allocated_tres["gres/gpu"]) if "gres/gpu" in allocated_tres else sum(map(int, gpus)),
    }


def parse_duration(text: str) -> int | None:
    """SLURM's durations: 30:00, 01:30:00, 2-00:00:00; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?", text)
    if match is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def parse_memory_size(text: str) -> float:
    """SLURM's memory sizes: 500M, 15.5G. Raises ValueError."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?)", text)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    return float(match[1]) * MIB_PER_UNIT[match[2]]

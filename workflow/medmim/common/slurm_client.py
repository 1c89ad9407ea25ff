"""SLURM's clients: squeue, sacct and scontrol are asked here and nowhere else."""

import csv
import os
import re
import subprocess
from datetime import UTC, datetime
from typing import Any

PATIENCE = 10
"""Seconds to wait for an answer that is only for the books: clients block while the controller is away."""
CONTROLLER_PATIENCE = 60
"""Seconds to wait for an answer that jobs depend on."""
MIB = {"": 2**-20, "K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}
"""MiB in SLURM's units of memory."""


def ask(command: list[str]) -> list[list[str]] | None:
    """Rows of what a SLURM client prints with | between fields, or None where it has no answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONTROLLER_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return [[field.strip() for field in row] for row in csv.reader(done.stdout.splitlines(), delimiter="|") if row]


def queue(name: str) -> list[list[str]] | None:
    """Id, state and comment of every job of a name that the controller knows."""
    return ask(["squeue", "--noheader", "--states=all", "--name", name, "--format", "%i|%T|%k"])


def accounted(ids: list[str]) -> list[list[str]]:
    """Id and state of jobs as the accounting database has them; none where there is no database."""
    return ask(["sacct", "-X", "--noheader", "--parsable2", "--format=JobIDRaw,State", "--jobs", ",".join(ids)]) or []


def slurm(*command: str) -> str:
    """What a client of SLURM's prints, its times being UTC; nothing where it is not there, fails, or does not answer in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,  # the script that runs us may come from there
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
            env=os.environ | {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"},
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return done.stdout


def utc(said: str) -> str | None:
    """A time in such an answer as all others here are written; None for Unknown and the like."""
    try:
        return datetime.fromisoformat(said).replace(tzinfo=UTC).isoformat(timespec="milliseconds")
    except ValueError:
        return None


def allocation(job: str) -> dict[str, Any]:
    """What SLURM says of one of its jobs; just its id where there is no answer."""
    try:
        return {"id": job, **_told(slurm("scontrol", "--oneliner", "--details", "show", "job", job), job)}
    except (KeyError, ValueError):
        return {"id": job}


def _told(text: str, job: str) -> dict[str, Any]:
    """Read a job's line, of which an array has one for each task. Raises KeyError or ValueError."""
    line = next((line for line in text.splitlines() if line.startswith(f"JobId={job} ")), "")
    told = dict(reversed(re.findall(r"(?:^|\s)([\w/:]+)=(\S*)", line)))  # reversed: what a comment says does not count
    given = dict(re.findall(r"([\w/]+)=([^,]*)", told.get("AllocTRES") or told["TRES"]))
    gpus = re.findall(r"(?:^|,)gpu(?::[^,:(]+)*:(\d+)", told.get("JOB_GRES", ""))  # TRES has no GPUs without a database
    nodes = int(told["NumNodes"].split("-")[0])
    return {
        "restarts": int(told["Restarts"]),
        "submitted": utc(told["SubmitTime"]),
        "started": utc(told["StartTime"]),
        "limit_seconds": seconds(told["TimeLimit"]),
        "partition": told["Partition"],
        "nodes": nodes,
        "cpus": int(told["NumCPUs"].split("-")[0]),
        "memory_mb": round(mebibytes(given["mem"]) / nodes) if "mem" in given else None,
        "gpus": int(given["gres/gpu"]) if "gres/gpu" in given else sum(map(int, gpus)),
    }


def seconds(said: str) -> int | None:
    """SLURM's durations: 30:00, 01:30:00, 2-00:00:00; None for UNLIMITED and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?", said)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def mebibytes(said: str) -> float:
    """SLURM's memory sizes: 500M, 15.5G. Raises ValueError."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)", said)
    if found is None:
        raise ValueError(f"not a size: {said!r}")
    return float(found[1]) * MIB[found[2]]

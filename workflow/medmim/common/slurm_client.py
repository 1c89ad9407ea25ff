"""SLURM's clients: squeue, sacct, sinfo, scontrol, scancel and sbatch are called here and nowhere else."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

CLIENT_TIMEOUT_SECONDS = 10
"""Seconds to wait for an answer that is only for the books: clients block while the controller is away."""
CONTROLLER_TIMEOUT_SECONDS = 60
"""Seconds to wait for an answer that jobs depend on."""
MIB_PER_UNIT = {"": 2**-20, "K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}
"""MiB in SLURM's units of memory."""
KEPT_VARIABLES = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}
"""How clients find a cluster and who asks: the only ones of SLURM's variables that are meant for every client."""
CLIENT_VARIABLES = re.compile(r"(SLURM|SQUEUE|SACCT|SINFO|SCANCEL|SRUN)_\w+|SBATCH_(ARRAY_INX|CLUSTERS|WAIT)")
"""Variables of a job around this process, and those by which clients show less, ask another cluster or submit something else."""
SEPARATOR = "\x1f"
"""Between fields of squeue: a comment or a folder may hold any printable character."""
PASSING_REFUSAL = re.compile(
    r"(Assoc|QOS)\w*Submit\w*Limit|not available \(inactive or drain\)|Socket timed out|Unable to contact slurm controller"
    r"|Zero Bytes were transmitted|temporarily unable to accept|Resource temporarily unavailable|in standby mode"
    r"|Transport endpoint is not connected|Connection (refused|reset|timed out)|Unexpected message received"
)
"""What sbatch says where the same job may be accepted later."""


@dataclass(frozen=True)
class SlurmJob:
    """A job of SLURM's, by its id and, where one was named, its cluster."""

    id: str
    cluster: str = ""

    def __str__(self) -> str:
        return f"{self.id} of cluster {self.cluster}" if self.cluster else self.id


@dataclass(frozen=True)
class QueueRow:
    """What squeue says of a job."""

    job: SlurmJob
    state: str
    reason: str = ""
    folder: str = ""
    """Working directory."""
    name: str = ""
    comment: str = ""


class SubmissionError(Exception):
    """A job that sbatch did not accept."""


class PassingRefusal(SubmissionError):
    """A job that sbatch did not accept, or of which it is not known whether it did, and may accept later."""


def clean_environment(environment: MutableMapping[str, str]) -> str:
    """Take away what would mislead SLURM's clients; the clusters that it named for jobs."""
    clusters = environment.get("SBATCH_CLUSTERS") or environment.get("SLURM_CLUSTERS") or ""
    for name in [name for name in environment if CLIENT_VARIABLES.fullmatch(name) and name not in KEPT_VARIABLES]:
        del environment[name]
    return clusters


def _call_client(command: list[str], timeout: float, script: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a client, its times being UTC. Raises OSError or subprocess.TimeoutExpired."""
    environment = dict(os.environ)
    clean_environment(environment)
    return subprocess.run(
        command,
        input=script or "",  # not what is piped into this process
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        env=environment | {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"},
    )


def query_client(command: list[str], separator: str = "|") -> list[list[str]] | None:
    """Rows of what a SLURM client prints, or None where it has no answer."""
    try:
        completed = _call_client(command, CONTROLLER_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if completed.returncode != 0:
        return None
    return [[field.strip() for field in line.split(separator)] for line in completed.stdout.split("\n") if line]


def query_queue(clusters: Iterable[str] = ("",)) -> list[QueueRow] | None:
    """What the controllers of clusters, "" being the one here, know of this user's jobs; None where one has no answer."""
    queue_rows: list[QueueRow] = []
    for cluster in clusters:
        fields = SEPARATOR.join(("%i", "%T", "%r", "%Z", "%j", "%k"))
        command = [
            "squeue",
            "--me",
            "--all",
            "--array",
            "--noheader",
            "--states=all",
            *_name_cluster(cluster),
            "--format",
            fields,
        ]
        rows = query_client(command, SEPARATOR)
        if rows is None:
            return None
        queue_rows += [QueueRow(SlurmJob(row[0], cluster), *row[1:]) for row in rows if len(row) == 6]  # not CLUSTER: its name
    return queue_rows


def _name_cluster(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def query_accounting(jobs: Iterable[SlurmJob]) -> dict[SlurmJob, str]:
    """State of jobs that the accounting database knows; none where there is no database."""
    jobs = list(jobs)
    states: dict[SlurmJob, str] = {}
    for cluster in sorted({job.cluster for job in jobs}):
        ids = ",".join(job.id for job in jobs if job.cluster == cluster)
        rows = _query_database(cluster, ids, "JobIDRaw", "State", "--allocations")
        states |= {SlurmJob(row[0], cluster): row[1].split()[0] for row in rows if row[1]}
    return states


def _query_database(cluster: str, ids: str, *fields: str) -> list[list[str]]:
    """Rows of sacct; options may stand among the fields."""
    names = ",".join(name for name in fields if not name.startswith("-"))
    options = [name for name in fields if name.startswith("-")]
    command = ["sacct", *options, "--noheader", "--parsable2", *_name_cluster(cluster), f"--format={names}", "--jobs", ids]
    return query_client(command) or []


def query_nodes(job: SlurmJob) -> list[str]:
    """Nodes that a job ran on, as the accounting database has them; none where there is no database."""
    return [row[0] for row in _query_database(job.cluster, job.id, "NodeList", "--allocations") if row[0]]


def query_peak_memory(job: SlurmJob) -> float | None:
    """Largest memory in MiB that a step of a job had, as the accounting database has it; None where it says none."""
    sizes = [row[0] for row in _query_database(job.cluster, job.id, "MaxRSS") if row[0]]
    try:
        return max(map(parse_memory_size, sizes), default=None)
    except ValueError:  # only told beside an error, which it must not hide
        return None


def query_requested_memory(job: SlurmJob) -> str | None:
    """Memory that a job asked for on each node, as squeue writes it; None where there is no answer."""
    command = ["squeue", "--noheader", "--states=all", *_name_cluster(job.cluster), "--format=%m", f"--jobs={job.id}"]
    rows = [row for row in query_client(command) or [] if not row[0].startswith("CLUSTER")]
    return rows[0][0] if rows else None


@dataclass(frozen=True)
class PartitionLimits:
    """What a partition allows; None is no limit."""

    minutes: int | None
    memory_mb: int | None


def query_partition_limits(partitions: str, cluster: str = "") -> PartitionLimits:
    """The widest limits of partitions, whose names have commas between; no limits where there is no answer."""
    command = ["sinfo", "--noheader", "--exact", *_name_cluster(cluster), "--partition", partitions, "--format=%R|%l|%m"]
    rows = [row for row in query_client(command) or [] if len(row) == 3]
    seconds = [parse_duration(row[1]) for row in rows]
    minutes = None if not rows or None in seconds else max(s for s in seconds if s is not None) // 60
    memory = max((int(row[2].rstrip("+")) for row in rows), default=None)
    return PartitionLimits(minutes, memory)


def submit_script(command: list[str], script: str, cluster: str = "") -> SlurmJob | None:
    """Submit a script by an sbatch command; the job, None where it was accepted but the answer does not say its id.

    Raises SubmissionError, or PassingRefusal where a later try may be accepted, or this one was.
    """
    try:
        completed = _call_client(command, CONTROLLER_TIMEOUT_SECONDS, script)
    except subprocess.TimeoutExpired as error:
        raise PassingRefusal(str(error)) from None
    except OSError as error:
        raise SubmissionError(str(error)) from None
    if completed.returncode != 0 or "submission failed" in completed.stderr:
        words = completed.stderr.strip() or completed.stdout.strip() or f"sbatch ended with status {completed.returncode}"
        refusal = PassingRefusal if PASSING_REFUSAL.search(words) else SubmissionError
        raise refusal(f"{words} (by {shlex.join(command)})")
    # A site may have sbatch print a greeting, with numbers in it.
    answers = [match for line in completed.stdout.splitlines() if (match := re.fullmatch(r"(\d+)(?:;(.+))?", line.strip()))]
    return SlurmJob(answers[-1][1], cluster) if answers else None


def cancel_jobs(jobs: Iterable[SlurmJob]) -> str:
    """Cancel jobs; what scancel says where it fails."""
    jobs = list(jobs)
    faults = []
    for cluster in sorted({job.cluster for job in jobs}):
        command = ["scancel", *_name_cluster(cluster), *(job.id for job in jobs if job.cluster == cluster)]
        try:
            completed = _call_client(command, CONTROLLER_TIMEOUT_SECONDS)
            faults += [completed.stderr.strip()] if completed.returncode else []
        except (OSError, subprocess.TimeoutExpired) as error:
            faults.append(str(error))
    return "; ".join(faults)


def run_slurm_client(*command: str) -> str:
    """What a client of SLURM's prints; nothing where it is not there, fails, or does not answer in time."""
    try:
        completed = _call_client(list(command), CLIENT_TIMEOUT_SECONDS)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return completed.stdout if completed.returncode == 0 else ""


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

"""Snakemake inside a SLURM job, by slurm/run.sbatch: queued again or cancelled, it goes on and takes its jobs over."""

import os
import signal
from pathlib import Path

import pytest
from cluster import Cluster, run_client, wait_until
from submit import FAST_PROFILE, RUN_PATH, copy_run_without, find_unfinished, list_outcomes

from runs import MINI, commit_checkout, find_faults, hash_artifacts, list_snakemake_logs

LOST = "scores/mantis.parquet"


@pytest.fixture
def folder(mini: Path, tmp_path: Path) -> Path:
    return copy_run_without(mini, tmp_path, LOST)


class OuterJob:
    """The SLURM job in which Snakemake runs."""

    def __init__(self, cluster: Cluster, folder: Path, *options: str, retries: int = 1) -> None:
        self.cluster, self.folder = cluster, folder
        self.log = folder / "said"
        words = ["--parsable", f"--output={self.log}", "--export=ALL,MEDMIM_CACHE="]
        arguments = [f"{RUN_PATH}/{LOST}", "--profile", str(FAST_PROFILE), "--directory", str(folder), "--configfile", str(MINI)]
        arguments += ["--retries", str(retries)]
        environment_words = ["env", f"--chdir={commit_checkout()}"]  # where sbatch is called is where the script looks
        script = str(commit_checkout() / "slurm/run.sbatch")
        self.id = run_client(*environment_words, "sbatch", *words, *options, script, *arguments).strip()

    @property
    def output(self) -> str:
        """What is on its screen, which is a file, and what Snakemakes have written into their own logs."""
        logs = [self.log, *list_snakemake_logs(self.folder)]
        return "".join(log.read_text() for log in logs if log.exists())

    @property
    def known(self) -> dict[str, str]:
        return self.cluster.list_jobs()[self.id]

    def halt_inner_job(self) -> tuple[int, str]:
        """Halt the inner job in the middle; its process and its SLURM job."""
        claim = (self.folder / RUN_PATH / LOST).with_name(".mantis.parquet.partial-claim")
        process = self.cluster.halt_program("score.py", claim.exists)
        [job] = [
            each
            for each, known in self.cluster.list_jobs().items()
            if int(each) > int(self.id) and known["JobState"] == "RUNNING"
        ]
        return process, job

    def wait_for_output(self, text: str) -> None:
        wait_until(lambda: text in self.output, lambda: f"Snakemake to say {text!r}:\n{self.output}")

    def wait_for_end(self, state: str = "COMPLETED") -> None:
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        wait_until(lambda: self.known["JobState"] in ends, lambda: f"job {self.id} to end:\n{self.output}")
        assert self.known["JobState"] == state, self.output


def check_taken_over(outer: OuterJob, mini: Path, process: int, inner: str) -> None:
    """The inner job that an earlier Snakemake submitted is waited for, and all is as in a run that nothing disturbed."""
    outer.wait_for_output(f"is in the queue as SLURM jobid {inner}")
    os.kill(process, signal.SIGCONT)
    outer.wait_for_end()
    assert list_outcomes(outer.folder, "score") == ["done"]
    assert hash_artifacts(outer.folder) == hash_artifacts(mini)
    assert find_unfinished(outer.folder) == [] and find_faults(outer.folder) == []
    assert outer.cluster.list_jobs()[inner]["Restarts"] == "0"


def test_its_job_is_queued_again(cluster: Cluster, mini: Path, folder: Path) -> None:
    """On another node, from which the first Snakemake can't be seen."""
    outer = OuterJob(cluster, folder)
    process, inner = outer.halt_inner_job()
    node = outer.known["NodeList"]
    run_client("scontrol", "requeuehold", outer.id)
    wait_until(lambda: outer.known["JobState"] == "PENDING", "the job to be in the queue again")
    run_client("scontrol", "update", f"JobId={outer.id}", f"ExcNodeList={node}")
    run_client("scontrol", "release", outer.id)
    outer.wait_for_output("is released: SLURM has queued that job again")
    check_taken_over(outer, mini, process, inner)
    assert outer.known["Restarts"] == "1" and outer.known["NodeList"] != node


def test_its_time_limit_comes_near(cluster: Cluster, mini: Path, folder: Path) -> None:
    """The script asks by itself to be queued again: here at SLURM's next look at limits, as it has three minutes at most."""
    outer = OuterJob(cluster, folder)
    process, inner = outer.halt_inner_job()
    hours, minutes, _ = map(int, outer.known["RunTime"].split(":"))
    run_client("scontrol", "update", f"JobId={outer.id}", f"TimeLimit={60 * hours + minutes + 3}")
    outer.wait_for_output(f"SLURM job {outer.id} asks to be queued again")
    run_client("scontrol", "update", f"JobId={outer.id}", "TimeLimit=60")
    check_taken_over(outer, mini, process, inner)
    assert int(outer.known["Restarts"]) >= 1


def test_its_job_is_cancelled_and_submitted_again(cluster: Cluster, mini: Path, folder: Path) -> None:
    """At once, on another node, so that the first may still be ending: only SLURM knows of its process."""
    outer = OuterJob(cluster, folder)
    process, inner = outer.halt_inner_job()
    node = outer.known["NodeList"]
    run_client("scancel", outer.id)
    second = OuterJob(cluster, folder, f"--exclude={node}")
    second.wait_for_output("is released: that SLURM job has ended")
    check_taken_over(second, mini, process, inner)
    assert outer.known["JobState"] == "CANCELLED" and second.known["NodeList"] != node


def test_a_snakemake_that_fails_fails_its_job(cluster: Cluster, folder: Path) -> None:
    outer = OuterJob(cluster, folder, retries=0)
    _, inner = outer.halt_inner_job()
    run_client("scancel", inner)
    outer.wait_for_end("FAILED")

"""What clusters do to a run: what the user sees, that nothing is left half made, and that the rest completes with the same bytes.

Each test begins with a finished run that lacks one small artifact. A job that is to be disturbed is halted, as a slow disk
would halt it, so that the fault finds it at work.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from cluster import Cluster, process_status, run_client, wait_until
from submit import RUN_PATH, SnakemakeRun, copy_run_without, find_unfinished, list_outcomes

from runs import MINI, find_faults, hash_artifacts

LOST = "scores/mantis.parquet"
TARGET = f"{RUN_PATH}/{LOST}"
OTHER = "scores/llava-med.parquet"
PROGRAM = "score.py"


@pytest.fixture
def folder(mini: Path, tmp_path: Path) -> Path:
    return copy_run_without(mini, tmp_path, LOST)


def configured(folder: Path, **values: dict[str, object]) -> Path:
    """The mini config with other values."""
    told = yaml.safe_load(MINI.read_text())
    for name, part in values.items():
        told[name] = told.get(name, {}) | part
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(told, sort_keys=False))
    return config


def as_undisturbed(folder: Path, mini: Path) -> None:
    assert hash_artifacts(folder) == hash_artifacts(mini)
    assert find_unfinished(folder) == [] and find_faults(folder) == []


def as_before(folder: Path, mini: Path, *lost: str) -> None:
    """What was lost is not there, nor a part of it, and all else is as it was."""
    assert hash_artifacts(folder) == {name: sha for name, sha in hash_artifacts(mini).items() if name not in lost}


def again(folder: Path, mini: Path, *arguments: str | Path) -> str:
    """The same command once more: it does what is missing, and all is as in a run that nothing disturbed."""
    said = SnakemakeRun(folder, *arguments).wait_for_end()
    as_undisturbed(folder, mini)
    return said


def halted(cluster: Cluster, folder: Path) -> tuple[int, str]:
    """Halt the job in the middle: it has claimed its output and not written it; its process and its SLURM job."""
    claim = (folder / TARGET).with_name(".mantis.parquet.partial-claim")
    process = cluster.halt_program(PROGRAM, claim.exists)
    [job] = [job["JobId"] for job in cluster.list_jobs().values() if job["JobState"] == "RUNNING"]
    assert not (folder / TARGET).exists()
    return process, job


def test_a_failed_job_is_shown_with_its_error(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    folder = copy_run_without(mini, tmp_path, "report.html")
    (folder / "paper.csv").write_text("model,set\nmantis,odir\n")
    config = configured(folder, report={"paper": str(folder / "paper.csv")})
    said = SnakemakeRun(folder, f"{RUN_PATH}/report.html", "--retries", "0", config=config).wait_for_end(ok=False)
    job = next(iter(cluster.list_jobs()))
    assert "Error in rule report" in said and f"SLURM jobid {job}" in said
    assert f"{RUN_PATH}/logs/report.log" in said and "report.py: error: " in said and "paper.csv" in said
    assert "Traceback" not in said and "report.py: error: " in said.splitlines()[-1] and "--code" not in said
    as_before(folder, mini, "report.html")
    again(folder, mini)


def test_scancel(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder, TARGET, "--retries", "0")
    _, job = halted(cluster, folder)
    run_client("scancel", job)
    said = run.wait_for_end(ok=False)
    assert f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'" in said and "Error in rule score" in said
    as_before(folder, mini, LOST)
    again(folder, mini, TARGET)


def test_a_wrong_partition(cluster: Cluster, mini: Path, folder: Path) -> None:
    said = SnakemakeRun(folder, TARGET, "--retries", "0", "--set-resources", "score:slurm_partition=nosuch").wait_for_end(
        ok=False
    )
    assert "invalid partition specified: nosuch" in said and "Error in rule score" in said
    as_before(folder, mini, LOST)
    again(folder, mini, TARGET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set-resources", "predict:gpu=3"], "Requested node configuration is not available"),
        ([], "error: gpus: 1 asked for, but torch"),
    ],
    ids=["too many", "not there"],
)
def test_gpus(cluster: Cluster, mini: Path, tmp_path: Path, options: list[str], message: str) -> None:
    """More than there are: SLURM says so. As many as SLURM has, which are made up: the job says so, before it reads anything."""
    lost = "predictions/mantis.parquet"
    folder = copy_run_without(mini, tmp_path, lost)
    config = configured(folder, prediction={"gpus": 1})
    said = SnakemakeRun(folder, f"{RUN_PATH}/{lost}", "--retries", "0", *options, config=config).wait_for_end(ok=False)
    assert "Error in rule predict" in said and message in said and "Traceback" not in said
    as_before(folder, mini, lost)
    again(folder, mini, f"{RUN_PATH}/{lost}")


def test_a_node_out_of_reach_computes_on(cluster: Cluster, mini: Path, folder: Path) -> None:
    """Its slurmd is killed: SLURM queues the job again, on another node, and the first run, which goes on, leaves nothing."""
    run = SnakemakeRun(folder, TARGET)
    process, job = halted(cluster, folder)
    node = cluster.list_jobs()[job]["NodeList"]
    cluster.kill_node(node, orphans=True)
    run.wait_for_end()
    known = cluster.list_jobs()[job]
    assert known["JobState"] == "COMPLETED" and known["Restarts"] == "1" and known["NodeList"] != node
    made = (folder / TARGET).stat().st_mtime_ns
    its_snakemake = int(process_status(process)["PPid"])
    os.kill(process, signal.SIGCONT)
    wait_until(
        lambda: not Path(f"/proc/{its_snakemake}").exists(), "the first run to end, and the Snakemake that started it there"
    )
    assert list_outcomes(folder, "score") == ["superseded", "done"]
    assert (folder / TARGET).stat().st_mtime_ns == made
    as_undisturbed(folder, mini)


def test_a_node_is_lost_and_slurm_does_not_requeue(cluster: Cluster, mini: Path, folder: Path) -> None:
    """Its power is gone: the job is failed, and Snakemake tries again, on another node."""
    site = folder / "site"
    site.mkdir()
    (site / "config.yaml").write_text("slurm-medmim-requeue: false\nslurm-medmim-no-requeue: true\n")
    run = SnakemakeRun(folder, TARGET, site=site)
    _, job = halted(cluster, folder)
    node = cluster.list_jobs()[job]["NodeList"]
    cluster.kill_node(node)
    said = run.wait_for_end()
    assert cluster.job_state(job) == "NODE_FAIL" and f"SLURM-job '{job}' failed" in said
    [other] = [known for i, known in cluster.list_jobs().items() if int(i) > int(job)]
    assert other["JobState"] == "COMPLETED" and other["NodeList"] != node
    assert list_outcomes(folder, "score") == ["killed", "done"]
    as_undisturbed(folder, mini)


def test_a_node_is_drained(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    """What runs there ends as ever; what comes goes elsewhere."""
    folder = copy_run_without(mini, tmp_path, LOST, OTHER)
    run = SnakemakeRun(folder, TARGET)
    process, job = halted(cluster, folder)
    node = cluster.list_jobs()[job]["NodeList"]
    cluster.drain_node(node)
    os.kill(process, signal.SIGCONT)
    run.wait_for_end()
    SnakemakeRun(folder, f"{RUN_PATH}/{OTHER}").wait_for_end()
    assert [known["NodeList"] == node for i, known in cluster.list_jobs().items() if int(i) >= int(job)] == [True, False]
    as_undisturbed(folder, mini)


def test_slurmctld_crashes_and_comes_back_while_a_job_runs(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder, TARGET)
    process, _ = halted(cluster, folder)
    cluster.stop_controller(crash=True)
    cluster.start_controller()
    os.kill(process, signal.SIGCONT)
    run.wait_for_end()
    assert list_outcomes(folder, "score") == ["done"]
    as_undisturbed(folder, mini)


def test_slurmctld_is_away_for_long_and_the_job_ends_meanwhile(cluster: Cluster, mini: Path, folder: Path) -> None:
    """Longer than a client waits: Snakemake says that it waits, and gives up no job, whose note or SLURM tells of its end."""
    run = SnakemakeRun(folder, TARGET)
    process, _ = halted(cluster, folder)
    cluster.stop_controller()
    run.wait_for_output("SLURM does not answer: waiting for it")
    os.kill(process, signal.SIGCONT)
    wait_until((folder / TARGET).exists, "the job to end")
    cluster.start_controller()
    run.wait_for_end()
    assert list_outcomes(folder, "score") == ["done"]
    as_undisturbed(folder, mini)


def test_slurmctld_is_away_when_a_job_is_submitted(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder, TARGET, "--retries", "0")
    run.wait_for_output("SLURM run ID")
    run.send_signal(signal.SIGSTOP)
    assert "submitted" not in run.output
    cluster.stop_controller()
    run.send_signal(signal.SIGCONT)
    run.wait_for_output("SLURM does not answer: waiting for it")
    cluster.start_controller()
    run.wait_for_end()
    assert list_outcomes(folder, "score") == ["done"]
    as_undisturbed(folder, mini)


def test_sigint_cancels_the_jobs(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder, TARGET)
    _, job = halted(cluster, folder)
    run.send_signal(signal.SIGINT)
    run.wait_for_end(ok=False)
    wait_until(lambda: cluster.job_state(job) == "CANCELLED", "the job to be cancelled")
    as_before(folder, mini, LOST)
    again(folder, mini, TARGET)


def test_sigterm_waits_for_the_jobs(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder, "--retries", "0")
    process, _ = halted(cluster, folder)
    run.send_signal(signal.SIGTERM)
    run.wait_for_output("Will exit after finishing currently running jobs")
    os.kill(process, signal.SIGCONT)
    run.wait_for_end(ok=False)
    assert list_outcomes(folder, "score") == ["done"]
    again(folder, mini)


def test_sigkill_and_again_takes_the_running_job_over(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder, TARGET)
    process, job = halted(cluster, folder)
    run.kill()
    run = SnakemakeRun(folder, TARGET)
    run.wait_for_output("is released: that process has ended")
    run.wait_for_output(f"is in the queue as SLURM jobid {job}")
    os.kill(process, signal.SIGCONT)
    run.wait_for_end()
    assert list_outcomes(folder, "score") == ["done"]
    as_undisturbed(folder, mini)


def test_sigkill_and_again_when_the_job_has_ended(cluster: Cluster, mini: Path, folder: Path) -> None:
    run = SnakemakeRun(folder, TARGET)
    process, job = halted(cluster, folder)
    run.kill()
    os.kill(process, signal.SIGCONT)
    wait_until(lambda: cluster.job_state(job) == "COMPLETED", "the job to end")
    said = again(folder, mini, TARGET)
    assert "Nothing to be done" in said
    assert list_outcomes(folder, "score") == ["done"]


def test_a_full_disk(cluster: Cluster, mini: Path, tmp_path: Path) -> None:
    """The disk of the results, which all nodes see."""
    disk = tmp_path / "results"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", disk], check=True)
    try:
        folder = copy_run_without(mini, tmp_path, "report.html")
        used = sum(p.stat().st_blocks for p in disk.rglob("*")) * 512
        subprocess.run(["mount", "-o", f"remount,size={used + (64 << 10)}", disk], check=True)
        said = SnakemakeRun(folder, "--retries", "0").wait_for_end(ok=False)
        assert "no space left for results/mini/report.html" in said and "Error in rule report" in said
        assert "Nothing is half written: make room and start again" in said
        as_before(folder, mini, "report.html")
        assert find_unfinished(folder) == []
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        again(folder, mini)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("late", [True, False], ids=["late", "never"])
def test_a_slow_shared_file_system(cluster: Cluster, mini: Path, folder: Path, late: bool) -> None:
    """The nodes' folder of scores is another than Snakemake's, and what is written there comes here when the test copies it.

    So files are there for a job's node and not yet for Snakemake, and the other way round, as with the caches of NFS.
    """
    here, there = (folder / TARGET).parent, folder / "scores of the nodes"
    there.mkdir()
    nodes = ("c1", "c2")
    for node in nodes:
        cluster.run_on_node(node, "mount", "--bind", str(there), str(here))
    try:
        run = SnakemakeRun(folder, TARGET, "--retries", "0")
        run.wait_for_output("Waiting at most 10 seconds for missing files")
        assert not (folder / TARGET).exists() and (there / here.joinpath(LOST).name).exists()
        if late:
            subprocess.run(["cp", "--archive", f"{there}/.", here], check=True)
        said = run.wait_for_end(ok=late)
    finally:
        for node in nodes:
            cluster.run_on_node(node, "umount", "--lazy", str(here))
    if late:
        as_undisturbed(folder, mini)
    else:
        assert "latency-wait" in said and TARGET in said
        again(folder, mini, TARGET)

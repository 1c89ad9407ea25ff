"""A training on the cluster: its node taken back, its time over, its node lost, its user's scancel; several processes by srun.

A training that is to be disturbed is halted after its first checkpoint, as a long step would, until the fault is there: so it
need not be long, and each fault meets it in the middle.
"""

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
import yaml
from cluster import Cluster, process_status, run_client, wait_until
from submit import RUN_PATH, SnakemakeRun, copy_run_without, find_unfinished

from config_files import config_file
from medmim.provenance.code_digest import WORKFLOW
from medmim.tables import table_io
from runs import MINI
from small_models import write_model, write_tables

TUNING = {
    "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.1, "max_steps": 60, "precision": "fp32", "max_length": 128,
    "gradient_checkpointing": False, "checkpoint_steps": 5, "learning_rate": 1e-2,
}  # fmt: skip
PAIR = {"processes": 2, "zero_stage": 2, "lora_dropout": 0.0}
"""Two processes with DeepSpeed; the packs of one process of two a step. Without dropout, which each draws for itself."""
HOLD = ["sbatch", "--parsable", "--partition=cpu", "--cpus-per-task=32", "--output=/dev/null", "--wrap", "exec tail -f /dev/null"]
"""A job that needs a whole node, and may take it from others."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and its shards."""
    folder = tmp_path_factory.mktemp("prepared")
    qa, images, _ = write_tables(folder)
    (folder / "base").mkdir()
    model = write_model(folder / "base", "llava-med")
    words = [sys.executable, str(WORKFLOW / "scripts/build_shards.py"), "--model", str(model), "--qa", str(qa)]
    words += ["--cfg", config_file({"family": "llava-med", "system": "", "max_length": 512, "max_rejected": 0})]
    for part in ("samples", "pixels", "rejected"):
        words += [f"--{part}", str(folder / f"{part}.parquet")]
    run_client(*words, "--images", str(images), seconds=120)
    return folder


def command(prepared: Path, out: Path, **tuning: object) -> list[str]:
    return [
        sys.executable, str(WORKFLOW / "scripts/tune.py"),
        "--cfg", config_file({"family": "llava-med", "hub": None, "seed": 3, "tuning": TUNING | tuning}),
        "--model", str(prepared / "base/files.parquet"), "--samples", str(prepared / "samples.parquet"),
        "--pixels", str(prepared / "pixels.parquet"), "--tuned", str(out / "adapter/files.parquet"),
        "--loss", str(out / "loss.parquet"), "--checkpoints", str(out / "checkpoints"),
    ]  # fmt: skip


class Training:
    """A training as a SLURM job."""

    def __init__(self, cluster: Cluster, prepared: Path, out: Path, *options: str, **tuning: object) -> None:
        self.cluster, self.out = cluster, out
        out.mkdir(parents=True, exist_ok=True)
        step = shlex.join(["srun", "--kill-on-bad-exit=1", *command(prepared, out, **tuning)])
        step += f' --log {shlex.quote(str(out))}/log"$SLURM_RESTART_COUNT"'
        self.job = run_client(
            "sbatch", "--parsable", "--partition=spot", "--requeue", "--mem=4000", "--open-mode=append", f"--output={out}/said",
            "--export=ALL,OMP_NUM_THREADS=1,MEDMIM_CACHE=,PYTHONPATH=" + str(WORKFLOW), *options, f"--wrap=exec {step}",
        ).strip()  # fmt: skip

    @property
    def said(self) -> str:
        """What it said, and its logs: srun may lose the last words of a step that SLURM ends."""
        places = [self.out / name for name in ("said", "log", "log1")]
        return "".join(place.read_text() for place in places if place.exists())

    @property
    def known(self) -> dict[str, str]:
        """What the controller knows of the job."""
        return self.cluster.list_jobs()[self.job]

    def runs(self) -> list[int]:
        """The first process of each run that has begun to write checkpoints, oldest first."""
        folders = sorted(self.out.glob("checkpoints/*/*/"), key=lambda p: p.stat().st_ctime_ns)
        return [int(p.name.split("-")[1]) for p in folders]

    def halt(self) -> int:
        """Wait for the first checkpoint and halt the training; its process."""
        wait_until(lambda: list(self.out.glob("checkpoints/*/*/*/whole.json")), "a checkpoint")
        [process] = self.runs()
        os.kill(process, signal.SIGSTOP)
        wait_until(lambda: process_status(process)["State"].startswith("T"), f"process {process} to halt")
        return process

    def end(self, *states: str) -> str:
        """Wait until it has ended, as it should; what it said."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
        wait_until(lambda: self.known["JobState"] in ends, lambda: f"job {self.job} to end; {self.cluster.read_logs()}")
        assert self.known["JobState"] in (states or ("COMPLETED",)), (self.known, self.said[-3000:])
        return self.said


def same(a: Path, b: Path) -> bool:
    return all((a / n).read_bytes() == (b / n).read_bytes() for n in ("loss.parquet", "adapter/adapter_model.safetensors"))


def told_to_stop(process: int) -> bool:
    """Whether SIGTERM waits for a halted process."""
    told = process_status(process)
    return bool((int(told["SigPnd"], 16) | int(told["ShdPnd"], 16)) >> (signal.SIGTERM - 1) & 1)


@pytest.fixture(scope="module")
def undisturbed(running: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a training that nothing happens to."""
    training = Training(running, prepared, tmp_path_factory.mktemp("undisturbed") / "out")
    training.end()
    return training.out


def test_taken_back_it_goes_on_elsewhere(cluster: Cluster, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    training = Training(cluster, prepared, tmp_path / "out")
    process = training.halt()
    first = training.known["NodeList"]
    run_client(*HOLD, f"--nodelist={first}")
    wait_until(lambda: training.known["Restarts"] == "1", lambda: f"job {training.job} to be queued again; {training.said}")
    said = training.end()
    assert training.known["NodeList"] != first
    step = said.split("told to stop (SIGTERM) at step ")[1].split()[0]
    assert f"resumes from checkpoint-{step}" in said and f"SLURM job {training.job} is queued again" in said
    assert "Traceback" not in said and process not in training.runs()
    assert same(undisturbed, training.out) and not (training.out / "checkpoints").exists()


def test_taken_back_before_its_first_step_it_starts_elsewhere(
    cluster: Cluster, prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    training = Training(cluster, prepared, tmp_path / "out")
    wait_until((training.out / "log").exists, "its log")
    [process] = [
        p for p in cluster.find_processes("tune.py") if process_status(p)["Name"].startswith("python")
    ]  # not srun, which names it
    os.kill(process, signal.SIGSTOP)
    run_client(*HOLD, f"--nodelist={training.known['NodeList']}")
    wait_until(lambda: training.known["Restarts"] == "1", lambda: f"job {training.job} to be queued again; {training.said}")
    said = training.end()
    assert "told to stop (SIGTERM) before training began" in said and "resumes" not in said and "Traceback" not in said
    assert f"SLURM job {training.job} is queued again" in said and same(undisturbed, training.out)


def test_out_of_time_it_is_queued_again(cluster: Cluster, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    training = Training(cluster, prepared, tmp_path / "out", "--time=2", "--signal=TERM@20")  # or up to a minute before that
    process = training.halt()
    wait_until(lambda: told_to_stop(process), "the signal before the end of its time")
    os.kill(process, signal.SIGCONT)
    said = training.end()
    assert "told to stop (SIGTERM) at step" in said and "resumes from checkpoint-" in said
    assert training.known["Restarts"] == "1" and same(undisturbed, training.out)


def test_cancelled_it_keeps_a_checkpoint_and_is_not_queued_again(
    cluster: Cluster, prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    training = Training(cluster, prepared, tmp_path / "out")
    training.halt()
    run_client("scancel", training.job)
    said = training.end("CANCELLED")
    assert "told to stop (SIGTERM) at step" in said and "is ending (COMPLETING): it is not queued again" in said
    assert training.known["Restarts"] == "0"
    step = said.split("told to stop (SIGTERM) at step ")[1].split()[0]
    again = Training(cluster, prepared, tmp_path / "out")
    assert f"resumes from checkpoint-{step}" in again.end() and same(undisturbed, again.out)


def test_its_node_is_lost_and_it_computes_on_there(cluster: Cluster, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    training = Training(cluster, prepared, tmp_path / "out")
    lost = training.halt()
    first = training.known["NodeList"]
    cluster.kill_node(first, orphans=True)
    wait_until(lambda: len(training.runs()) == 2, lambda: f"a second run of job {training.job}; {cluster.read_logs('slurmctld')}")
    new = training.runs()[1]
    os.kill(new, signal.SIGSTOP)
    os.kill(lost, signal.SIGCONT)
    wait_until(lambda: not Path(f"/proc/{lost}").exists(), "the lost run to notice")
    os.kill(new, signal.SIGCONT)
    said = training.end()
    assert "another run of this training took over" in said and "resumes from checkpoint-" in said
    assert training.known["NodeList"] != first
    assert same(undisturbed, training.out) and not (training.out / "checkpoints").exists()


@pytest.fixture(scope="module")
def pair(running: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of two processes on the node with the GPUs. The first start compiles DeepSpeed's communication operator."""
    training = Training(running, prepared, tmp_path_factory.mktemp("pair") / "out", "--partition=gpu", "--ntasks=2", **PAIR)
    wait_until(lambda: list(training.out.glob("checkpoints/*/*/*/whole.json")), "a checkpoint")
    training.end()
    return training.out


def test_two_processes_learn_what_one_learns(cluster: Cluster, prepared: Path, pair: Path, tmp_path: Path) -> None:
    alone = Training(cluster, prepared, tmp_path / "out", lora_dropout=0.0, accumulation=2)
    alone.end()
    two, one = (table_io.read_frame(out / "loss.parquet", "loss") for out in (pair, alone.out))
    assert two[["step", "tokens"]].equals(one[["step", "tokens"]])
    assert two.loss.tolist() == pytest.approx(one.loss.tolist(), rel=1e-5)  # over 60 steps


def test_two_nodes_are_taken_back_from_two_processes(cluster: Cluster, prepared: Path, pair: Path, tmp_path: Path) -> None:
    """Over two nodes as well as on one: the same bytes, also when interrupted."""
    training = Training(cluster, prepared, tmp_path / "out", "--nodes=2", "--ntasks=2", nodes=2, **PAIR)
    training.halt()
    holder = run_client(*HOLD, "--nodelist=c2").strip()
    wait_until(lambda: training.known["Restarts"] == "1", lambda: f"job {training.job} to be queued again; {training.said}")
    run_client("scancel", holder)
    said = training.end()
    assert "resumes from checkpoint-" in said and "Traceback" not in said
    assert same(pair, training.out)


@pytest.mark.parametrize("tuning", [{}, PAIR | {"nodes": 2}], ids=["alone", "two nodes"])
def test_snakemake_waits_for_a_training_that_is_taken_back(
    cluster: Cluster, mini: Path, tmp_path: Path, tuning: dict[str, object]
) -> None:
    lost = copy_run_without(mini, tmp_path, "models/med-mantis/files.parquet", "models/med-mantis.loss.parquet")
    told = yaml.safe_load(MINI.read_text())
    told["models"]["med-mantis"]["tuning"] |= {"max_steps": 60, "checkpoint_steps": 5} | tuning
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(told, sort_keys=False))  # the order of sources is one of inputs
    spot = ["slurm_partition=spot", "runtime=30", "mem_mb=4000"]
    run = SnakemakeRun(lost, RUN_PATH / "models/med-mantis/files.parquet", "--default-resources", *spot, config=config)
    checkpoint = f"{RUN_PATH}/checkpoints/med-mantis/*/*/*/whole.json"
    wait_until(lambda: list(lost.glob(checkpoint)) or run.process.poll() is not None, lambda: f"a checkpoint; {run.output}")
    [folder] = {path.parent.parent for path in lost.glob(checkpoint)}
    node, process, _ = folder.name.split("-")
    os.kill(int(process), signal.SIGSTOP)
    [job] = [name for name, known in cluster.list_jobs().items() if known["JobState"] == "RUNNING"]
    holder = run_client(*HOLD, f"--nodelist={node}").strip()
    wait_until(lambda: cluster.list_jobs()[job]["Restarts"] == "1", lambda: f"job {job} to be queued again; {run.output}")
    run_client("scancel", holder)
    said = run.wait_for_end()
    log = (lost / RUN_PATH / "logs/tune.med-mantis.log").read_text()
    assert "resumes from checkpoint-" in log and cluster.job_state(job) == "COMPLETED" and said.count("rule tune:") == 1
    assert not (lost / RUN_PATH / "checkpoints/med-mantis").exists()
    assert find_unfinished(lost) == [] and (lost / RUN_PATH / "models/med-mantis/files.parquet").exists()

"""Journals: what each run of a program leaves beside its log."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config_files import config_file
from medmim.common import slurm_client
from medmim.common.errors import RunInterruptedError, UserError
from medmim.provenance import job as job_module
from medmim.provenance import job_record, resource_log
from medmim.provenance.job import Job, build_parser

# As SLURM 22.05 printed it, without the fields between that are not read.
GPU = (
    "JobId=1 JobName=wrap UserId=root(0) Requeue=1 Restarts=2 RunTime=00:00:00 TimeLimit=1-02:00:00 TimeMin=N/A"
    " SubmitTime=2026-11-24T03:05:05 EligibleTime=2026-11-24T03:05:05 StartTime=2026-11-24T03:05:07 EndTime=2026-11-25T05:05:07"
    " Partition=gpu NodeList=g1 BatchHost=g1 NumNodes=1 NumCPUs=2 NumTasks=1 CPUs/Task=2 ReqB:S:C:T=0:0:*:*"
    " TRES=cpu=2,mem=900M,node=1,billing=2 JOB_GRES=gpu:h100:2   Nodes=g1 CPU_IDs=0-1 Mem=900 GRES=gpu:h100:2(IDX:0-1)"
    " Comment=rule_x TRES=mem=1M Partition=evil  StdIn=/dev/null Power= TresPerJob=gres:gpu:2 \n"
)
ARRAY = "".join(
    f"JobId={job} ArrayJobId=2 ArrayTaskId={task} Restarts=0 TimeLimit=UNLIMITED SubmitTime=2026-11-24T03:05:06"
    f" StartTime=Unknown Partition=cpu NumNodes=1 NumCPUs={task} TRES=cpu={task},mem=1.50G,node=1 JOB_GRES=(null) \n"
    for job, task in ((3, 1), (2, 2))
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run jobs in, outside SLURM."""
    for name in ("SLURM_JOB_ID", "SLURMD_NODENAME", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(error: BaseException | None = None, cfg: dict[str, Any] | None = None, **options: Any) -> None:
    arguments = build_parser("")
    arguments.add_argument("--threads", type=int)
    arguments.add_argument("--to", type=Path)
    argv = ["--cfg", config_file(cfg or {}), "--log", "logs/predict.m.plain.log", "--to", "out"]
    with Job(arguments, outputs=["to"], argv=argv + [w for k, v in options.items() for w in (f"--{k}", str(v))]) as job:
        if error:
            raise error
        job.out["to"].write_text("made")


def client(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a client of SLURM's in front of PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_a_run_leaves_a_line_at_its_start_and_one_at_its_end(place: Path) -> None:
    run(cfg={"gpus": 0, "threads": 3})
    start, end = lines(place / "logs/predict.m.plain.runs.jsonl")
    assert start["event"] == "start" and end["event"] == "end" and start["run"] == end["run"]
    assert {k: start[k] for k in ("threads", "gpus", "processes", "node", "slurm")} == {
        "threads": 3, "gpus": 0, "processes": 1, "node": None, "slurm": None,
    }  # fmt: skip
    assert end["outcome"] == "done" and start["at"] <= end["at"]
    assert 0 <= end["cpu_seconds"] < 10 and end["memory_mb"] > 10


def test_a_clock_that_is_set_back_makes_no_run_end_before_its_start(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class EarlierTime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(days=1)

    arguments = build_parser("")
    arguments.add_argument("--to", type=Path)
    with Job(arguments, outputs=["to"], argv=["--log", "logs/a.log", "--to", "out"]) as job:
        for module in (job_module, resource_log):
            monkeypatch.setattr(module, "datetime", EarlierTime)
        job.out["to"].write_text("made")
    start, end = lines(place / "logs/a.runs.jsonl")
    record = job_record.read_record(Path("out.prov.json"))
    assert start["at"] <= end["at"] and record["start"] <= record["end"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UserError("no"), "failed"),
        (RuntimeError("no"), "failed"),
        (RunInterruptedError("later"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (SystemExit(3), "stopped"),
    ],
)
def test_how_a_run_ended(place: Path, error: BaseException, outcome: str) -> None:
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run(error)
    run()
    assert [x.get("outcome") for x in lines(place / "logs/predict.m.plain.runs.jsonl")] == [None, outcome, None, "done"]


def test_a_run_from_the_cache_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMIM_CACHE", "cache")
    run()
    with pytest.raises(SystemExit):
        run()
    assert lines(place / "logs/predict.m.plain.runs.jsonl")[-1]["outcome"] == "restored"


def test_a_run_that_another_took_over_from_says_so(place: Path) -> None:
    arguments = build_parser("")
    arguments.add_argument("--to", type=Path)
    argv = ["--log", "logs/a.log", "--to", "out"]
    with pytest.raises(SystemExit), Job(arguments, outputs=["to"], argv=argv) as lost:
        lost.out["to"].write_text("old")
        with Job(arguments, outputs=["to"], argv=argv) as job:
            job.out["to"].write_text("new")
    assert [x.get("outcome") for x in lines(place / "logs/a.runs.jsonl")] == [None, None, "done", "superseded"]


def test_a_killed_run_leaves_its_start(place: Path) -> None:
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom medmim.provenance.job import Job, build_parser\n"
        "p = build_parser('')\np.add_argument('--to', type=Path)\n"
        "with Job(p, outputs=['to']):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, "--log", "logs/a.log", "--to", "out"], check=False)
    assert [x["event"] for x in lines(place / "logs/a.runs.jsonl")] == ["start"]


def test_without_a_log_there_is_no_journal(place: Path) -> None:
    with Job(build_parser(""), argv=[]):
        pass
    assert list(place.iterdir()) == []


def test_threads_and_gpus_are_those_of_the_option_or_the_config_for_every_process(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    run(cfg={"tuning": {"threads": 4, "gpus": 2}})
    run(threads=5)
    run()
    starts = lines(place / "logs/predict.m.plain.runs.jsonl")[::2]
    assert [(x["threads"], x["gpus"]) for x in starts] == [(8, 2), (10, 0), (2, 0)]


def test_a_line_that_was_torn_does_not_take_the_next_one_with_it(place: Path) -> None:
    (place / "logs").mkdir()
    file = place / "logs/predict.m.plain.runs.jsonl"
    file.write_text('{"event": "sta')
    run()
    first, start, end = file.read_text().splitlines()
    assert first == '{"event": "sta' and json.loads(start)["event"] == "start" and json.loads(end)["event"] == "end"


def test_a_journal_that_cannot_be_written_fails_nothing(place: Path) -> None:
    (place / "logs/predict.m.plain.runs.jsonl").mkdir(parents=True)
    run()
    assert (place / "out").read_text() == "made"


def test_children_count_their_time_and_their_memory_by_worker(place: Path) -> None:
    spend = "x = bytearray(200 << 20); x[::4096] = b'1' * len(x[::4096]); sum(range(4_000_000))"

    def memory(workers: int) -> tuple[float, float]:
        book = resource_log.Journal(place / f"{workers}.log", workers)
        book.write_start("p", {}, workers)
        subprocess.run([sys.executable, "-c", spend], check=True)
        book.record_child_memory()
        book.write_end("done")
        end = lines(place / f"{workers}.runs.jsonl")[1]
        return end["memory_mb"], end["cpu_seconds"]

    (one, spent), (three, _) = memory(1), memory(3)
    assert one > 200 and three > 600 and spent > 0.05


def test_slurm_is_asked_once_and_for_all_it_knows_of_the_job(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "said").write_text(GPU)
    client(place, "scontrol", f'echo "$@ $TZ" >> {place}/asked; cat {place}/said', monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURMD_NODENAME", "g1")
    run()
    assert (place / "asked").read_text() == "--oneliner --details show job 1 UTC\n"
    start = lines(place / "logs/predict.m.plain.runs.jsonl")[0]
    assert start["node"] == "g1"
    assert start["slurm"] == {
        "id": "1", "restarts": 2, "submitted": "2026-11-24T03:05:05.000+00:00", "started": "2026-11-24T03:05:07.000+00:00",
        "limit_seconds": 26 * 3600, "partition": "gpu", "nodes": 1, "cpus": 2, "memory_mb": 900, "gpus": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    "script", ["exit 1", "echo slurm_load_jobs error; exit 1", "true", "echo JobId=1 Partition=x", "sleep 60"]
)
def test_without_an_answer_the_jobs_number_is_all(place: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(slurm_client, "CLIENT_TIMEOUT_SECONDS", 0.5)
    client(place, "scontrol", f"exec {script}" if "sleep" in script else script, monkeypatch)
    before = time.monotonic()
    assert slurm_client.query_allocation("1") == {"id": "1"}
    assert time.monotonic() - before < 20


def test_no_client_is_no_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    assert slurm_client.query_allocation("1") == {"id": "1"}


def test_of_an_array_the_line_of_the_task_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "said").write_text(ARRAY)
    client(place, "scontrol", f"cat {place}/said", monkeypatch)
    found = [slurm_client.query_allocation(job) for job in ("2", "3")]
    assert [(f["id"], f["cpus"], f["memory_mb"], f["gpus"], f["limit_seconds"], f["started"]) for f in found] == [
        ("2", 2, 1536, 0, None, None), ("3", 1, 1536, 0, None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tres", "gres", "gpus", "memory"),
    [
        ("TRES=cpu=4,mem=8G,node=2,gres/gpu=3,gres/gpu:h100=3", "JOB_GRES=gpu:h100:3", 3, 4096),
        ("ReqTRES=mem=1M AllocTRES=cpu=4,mem=8G", "JOB_GRES=gpu:a100:1,gpu:h100:2", 3, 4096),
        ("TRES=cpu=4", "JOB_GRES=gpu:2,shard:7", 2, None),
        ("TRES=cpu=4", "", 0, None),
    ],
)
def test_gpus_and_memory_of_other_answers(tres: str, gres: str, gpus: int, memory: int | None) -> None:
    line = f"JobId=7 Restarts=0 TimeLimit=30:00 SubmitTime=None StartTime=None Partition=p NumNodes=2 NumCPUs=4 {tres} {gres}"
    found = slurm_client._parse_job_line(line, "7")
    assert (found["gpus"], found["memory_mb"], found["limit_seconds"]) == (gpus, memory, 1800)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("30:00", 1800), ("01:30:05", 5405), ("2-00:00:00", 172800), ("UNLIMITED", None), ("Partition_Limit", None), ("", None)],
)
def test_durations(said: str, seconds: int | None) -> None:
    assert slurm_client.parse_duration(said) == seconds


@pytest.mark.parametrize(("said", "size"), [("500M", 500), ("1.5G", 1536), ("2048K", 2), ("1T", 1048576), ("0", 0)])
def test_sizes(said: str, size: float) -> None:
    assert slurm_client.parse_memory_size(said) == size

"""Killed jobs, a killed Snakemake, full disks, two runs at once: what was whole stays whole, and a rerun gives the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from config_files import config_file
from medmim.common import files
from medmim.provenance import cache, job_record
from runs import MINI, call_snakemake, commit_checkout, find_faults, hash_artifacts, start_snakemake

RUN = Path("results/mini")
KINDS = [
    "make_phantoms",
    "build_images",
    "generate_qa",
    "find_copies",
    "merge_qa",
    "audit_release",
    "make_tokenizer",
    "build_shards",
    "make_base",
    "tune",
    "predict",
    "score",
    "leaderboard",
    "report",
    "print_leaderboard",
]
KILLS_OF_A_KIND = 2
KILLS_OF_SNAKEMAKE = 4
FULL = Path(__file__).with_name("full_disk.py")


def jobs(folder: Path) -> dict[str, list[job_record.Record]]:
    """Records of a run's jobs by program, in order of their start."""
    found: dict[str, dict[str, job_record.Record]] = {}
    for sidecar in job_record.find_sidecars(folder / RUN):
        record = job_record.read_record(sidecar)
        found.setdefault(record["program"].removesuffix(".py"), {})[record["key"]] = record
    return {kind: sorted(records.values(), key=lambda r: str(r["start"])) for kind, records in found.items()}


def command(record: job_record.Record) -> list[str]:
    """What runs a job again by hand."""
    program = str(commit_checkout() / "workflow/scripts" / record["program"])
    return [sys.executable, program, "--cfg", config_file(record["cfg"]), *record["command"]]


def environment(store: Path) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(commit_checkout() / "workflow"),
        cache.FOLDER_VARIABLE: str(store),
    }


def kill(record: job_record.Record, folder: Path, after: float) -> None:
    """Start a job as Snakemake does, its outputs deleted, and kill it after some seconds; sooner where it was done before."""
    while True:
        for output in job_record.output_files(record):
            (folder / output["path"]).unlink(missing_ok=True)
        job = subprocess.Popen(command(record), cwd=folder, env=environment(folder / "no cache"), stderr=subprocess.DEVNULL)
        try:
            job.wait(after)
        except subprocess.TimeoutExpired:
            job.kill()
        if job.wait() == -signal.SIGKILL:
            return
        shutil.rmtree(folder / "no cache", ignore_errors=True)
        after /= 2


def test_what_is_killed_leaves_nothing_half_made(mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of each kind at random moments, then the Snakemake that makes what they did not, with all that it runs."""
    shutil.copytree(mini / RUN, tmp_path / RUN, symlinks=True, ignore=shutil.ignore_patterns("replies"))
    done = jobs(tmp_path)
    assert done.keys() == set(KINDS)
    draw = random.Random(7)
    chosen = [record for kind in reversed(KINDS) for record in draw.choices(done[kind], k=KILLS_OF_A_KIND)]
    for record in chosen:  # from the last stage to the first, so that each finds its inputs
        took = (datetime.fromisoformat(record["end"]) - datetime.fromisoformat(record["start"])).total_seconds()
        kill(record, tmp_path, 0.1 + 0.8 * draw.random() * took)
        for output in (o for o in job_record.output_files(record) if (tmp_path / o["path"]).exists()):
            assert files.hash_file(tmp_path / output["path"]) == output["sha256"]
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    killed = 0
    while killed < KILLS_OF_SNAKEMAKE:
        run = start(tmp_path)
        try:
            run.communicate(timeout=3 + draw.random() * 7)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            killed += 1
        else:  # done before it was killed as often: from the start
            assert run.returncode == 0
            shutil.rmtree(tmp_path / "results")
            shutil.rmtree(tmp_path / "cache")
    call_snakemake(tmp_path, "--configfile", MINI, "--cores", "2")
    assert hash_artifacts(tmp_path) == hash_artifacts(mini)
    assert find_faults(tmp_path) == []


def start(folder: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
    return start_snakemake(folder, *arguments, "--configfile", MINI, "--cores", "2")


@pytest.mark.needs("mounts")
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_said_and_leaves_nothing(mini: Path, tmp_path: Path, kind: str) -> None:
    """A disk with half the room, then with enough: a small tmpfs in a mount namespace of its own."""
    record = max(jobs(mini)[kind], key=lambda r: sum(o["bytes"] for o in job_record.output_files(r)))
    arguments = [tmp_path / "disk", json.dumps(command(record)), json.dumps(record["outputs"])]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, FULL, *arguments],
        cwd=mini, env=environment(Path()) | {cache.FOLDER_VARIABLE: ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["full"]["status"] == 1
    assert "no space left" in told["full"]["said"] and "Traceback" not in told["full"]["said"]
    assert told["full"]["left"] == []
    assert told["roomy"]["status"] == 0
    assert told["roomy"]["hashes"] == {name: o["sha256"] for name, o in record["outputs"].items()}


@pytest.fixture
def many(tmp_path: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    running: list[subprocess.Popen[str]] = []
    yield running
    for run in running:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)


def test_a_second_snakemake_on_one_folder_is_turned_away(mini: Path, tmp_path: Path, many: list["subprocess.Popen[str]"]) -> None:
    target = f"{RUN}/qa/odir.parquet"
    many.append(start(tmp_path, target))
    until = time.monotonic() + 600
    while not (tmp_path / RUN / "logs").exists():
        assert time.monotonic() < until and many[0].poll() is None
        time.sleep(0.05)
    os.kill(many[0].pid, signal.SIGSTOP)  # so that it has not ended
    many.append(start(tmp_path, target))
    said = many[1].communicate()[1]
    os.kill(many[0].pid, signal.SIGCONT)
    assert many[1].returncode != 0 and "locked" in said
    assert many[0].communicate()[1] and many[0].returncode == 0
    assert files.hash_file(tmp_path / target) == files.hash_file(mini / target)


def test_two_runs_at_once_share_a_cache(
    mini: Path, tmp_path: Path, many: list["subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [f"{RUN}/qa/{source}.parquet" for source in ("odir", "pmc", "vqa_rad")]
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        many.append(start(folder, *targets))
    for run in many:
        said = run.communicate()[1]
        assert run.returncode == 0, said[-3000:]
    for folder in folders:
        made = hash_artifacts(folder)
        assert made and made == {name: sha for name, sha in hash_artifacts(mini).items() if name in made}
        assert find_faults(folder) == []
    kept = cache.Cache(tmp_path / "cache", 1 << 40)
    assert kept.list_entries() and kept.find_damaged(p.name for p in kept.folder.glob("blobs/*/*")) == []

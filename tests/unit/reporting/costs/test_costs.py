"""What a run cost, from made-up journals."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from record_made import complete_record

from medmim.provenance import job_record
from medmim.provenance.audit import UNTRACKED_NAMES
from medmim.reporting.costs import advice, page, runs, summary
from medmim.tables import table_io

PROGRAM = Path(page.__file__).parents[3] / "scripts/costs.py"
ZERO = datetime(2026, 1, 1, tzinfo=UTC)
Add = Callable[..., None]


def at(seconds: float) -> str:
    return (ZERO + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Write a run into the journals of tmp_path: times in seconds, `slurm` what SLURM said, no outcome for a killed one."""
    (tmp_path / "logs").mkdir()

    def write(
        name: str,
        start: float = 10,
        seconds: float = 100,
        outcome: str | None = "done",
        *,
        cpu: float = 90,
        memory: float = 500,
        slurm: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        run = f"{name} {start}"
        asked = {"host": "vm", "node": None, "processes": 1, "threads": 1, "gpus": 0, "program": "p.py"}
        first = {"event": "start", "run": run, "at": at(start), **asked, "slurm": slurm, **more}
        last = {
            "event": "end",
            "run": run,
            "at": at(start + seconds),
            "outcome": outcome,
            "cpu_seconds": cpu,
            "memory_mb": memory,
        }
        with (tmp_path / f"logs/{name}.runs.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in ([first, last] if outcome else [first]))

    return write


def slurm(job: str = "1", submitted: float = 0, started: float = 8, **more: Any) -> dict[str, Any]:
    """What a job of 1 CPU, 4 GB and an hour is told."""
    given = {"restarts": 0, "limit_seconds": 3600, "partition": "cpu", "nodes": 1, "cpus": 1, "memory_mb": 4000, "gpus": 0}
    return {"id": job, "submitted": at(submitted), "started": at(started), **given, **more}


def table(results: Path) -> list[summary.CostRow]:
    found = summary.build_job_rows(runs.read_runs(results))
    table_io.build_table("costs", found)
    return found


def test_a_job_with_a_retry_sums_its_attempts(tmp_path: Path, add: Add) -> None:
    add("tune.m", 10, 100, "failed", cpu=150, memory=900, slurm=slurm("4", cpus=2, gpus=2), node="g1")
    add("tune.m", 200, 50, cpu=50, slurm=slurm("7", 150, 190, cpus=2, gpus=2, memory_mb=8000), node="g2")
    (row,) = table(tmp_path)
    assert (row["rule"], row["job"], row["outcome"], row["attempts"], row["retries"]) == ("tune", "m", "done", 2, 1)
    assert (row["node"], row["slurm_job_id"], row["memory_asked_mb"], row["memory_mb"]) == ("g2", "7", 8000, 900)
    assert row["queue_seconds"] == 8 + 40 and row["run_seconds"] == 150 and row["used_seconds"] == 102
    assert row["gpu_hours"] == pytest.approx(2 * 150 / 3600) and row["cpu_hours"] == pytest.approx(2 * 150 / 3600)
    assert row["cpu_used_hours"] == pytest.approx(200 / 3600) and row["cpu_efficiency"] == pytest.approx(200 / 300)
    assert (row["submitted"], row["started"], row["ended"]) == (at(0), at(10), at(250))


def test_outside_slurm_there_is_no_queue(tmp_path: Path, add: Add) -> None:
    add("score.a.b", threads=2, gpus=1, processes=2)
    (row,) = table(tmp_path)
    assert (row["job"], row["threads"], row["queue_seconds"], row["slurm_job_id"]) == ("a.b", 2, None, None)
    assert row["gpu_hours"] == pytest.approx(100 / 3600) and row["cpu_used_hours"] == pytest.approx(180 / 3600)
    assert row["memory_mb"] == 1000


def test_a_killed_attempt_counts_with_no_time_and_is_told(tmp_path: Path, add: Add) -> None:
    add("tune.m", 0, outcome=None, gpus=1)
    add("tune.m", 50, gpus=1)
    add("tune.n", 0, outcome=None)
    killed, unknown = table(tmp_path)
    assert (killed["retries"], killed["unmeasured"], killed["run_seconds"]) == (1, 1, 100)
    assert (unknown["outcome"], unknown["unmeasured"], unknown["ended"], unknown["cpu_efficiency"]) == ("unknown", 1, None, None)
    whole = page.render_costs([killed, unknown], [], (0, 0.0))
    assert "2 attempts left no end" in whole and "not ended well" not in whole
    add("tune.n", 60, outcome="failed")
    assert "1 job has not ended well" in page.render_costs(table(tmp_path), [], (0, 0.0))


def accounts(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    (folder / "bin").mkdir()
    text = "\n".join(lines)
    (folder / "bin/sacct").write_text(f"#!/bin/sh\ncat <<X\n{text}\nX\n")
    (folder / "bin/sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_how_a_killed_attempt_ended_is_known_from_slurms_accounts(
    tmp_path: Path, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = "2026-01-01T00:"
    add("tune.a", 10, outcome=None, slurm=slurm("1", gpus=1))
    add("tune.a", 100, outcome=None, slurm=slurm("1", 60, 95, gpus=1))
    add("tune.b", 10, outcome=None, slurm=slurm("2"))
    add("tune.c", 10, outcome=None, slurm=slurm("3"))
    accounts(
        tmp_path,
        monkeypatch,
        f"1|REQUEUED|{day}00:08|{day}00:50|",
        f"1.batch|CANCELLED|{day}00:08|{day}00:50|300M",
        f"1|OUT_OF_MEMORY|{day}01:35|{day}03:00|",
        f"1.0|OUT_OF_MEMORY|{day}01:36|{day}03:00|3900M",
        f"2|CANCELLED by 0|{day}00:08|{day}00:30|",
        f"3|RUNNING|{day}00:08|Unknown|",
        "4|COMPLETED|Unknown|Unknown|",
    )
    again, cancelled, running = table(tmp_path)
    assert (again["outcome"], again["retries"], again["run_seconds"], again["memory_mb"]) == ("out of memory", 1, 40 + 80, 3900)
    assert again["gpu_hours"] == pytest.approx(120 / 3600) and again["unmeasured"] == 0
    assert (cancelled["outcome"], cancelled["run_seconds"]) == ("cancelled", 20)
    assert (running["outcome"], running["unmeasured"]) == ("running", 1)
    assert again["advice"] == "set-resources: tune: mem_mb: 8000 * attempt (4,000 MB did not suffice)"


def test_a_torn_line_is_left_out(tmp_path: Path, add: Add) -> None:
    add("score.a")
    with (tmp_path / "logs/score.a.runs.jsonl").open("a") as file:
        file.write('{"event": "start", "ru\n[]\n7\n{"event": "other", "run": "x"}\n\n')
    assert [row["attempts"] for row in table(tmp_path)] == [1]


def test_jobs_of_one_slurm_job_wait_once_and_hold_what_they_asked_for(tmp_path: Path, add: Add) -> None:
    together = slurm("5", cpus=3, gpus=1, memory_mb=12000)
    add("generate_qa.a", 10, slurm=together)
    add("generate_qa.b", 12, slurm=together)
    add("merge_qa", 120, slurm=together)
    found = table(tmp_path)
    assert [row["queue_seconds"] for row in found] == [8, None, None]
    assert [(row["threads"], row["gpu_hours"]) for row in found] == [(1, 0)] * 3
    assert {row["advice"] for row in found} == {
        "set-resources: generate_qa, merge_qa: mem_mb: 2000 for all together, one SLURM job (asked 12,000 MB, used 1,000 MB)"
    }


def advised(results: Path) -> list[str]:
    return [text for _, text in advice.suggest_settings(runs.read_runs(results))]


@pytest.mark.parametrize(
    ("asked", "used", "outcome", "said"),
    [
        (16000, 610, "done", ["set-resources: build: mem_mb: 1500 * attempt (asked 16,000 MB, used 610 MB)"]),
        (4000, 1100, "done", []),
        (1000, 20, "done", []),
        (16000, 610, "restored", []),
        (16000, 610, "failed", []),
        (2000, 410, "done", []),
        (4000, 3300, "stopped", []),
        (4000, 3300, "done", ["set-resources: build: mem_mb: 5500 * attempt (asked 4,000 MB, used 3,300 MB)"]),
        (4000, 3300, "failed", ["set-resources: build: mem_mb: 5500 * attempt (asked 4,000 MB, used 3,300 MB)"]),
    ],
)
def test_memory_asked_against_used(tmp_path: Path, add: Add, asked: int, used: int, outcome: str, said: list[str]) -> None:
    add("build.a", memory=used, outcome=outcome, slurm=slurm(memory_mb=asked))
    assert advised(tmp_path) == said


@pytest.mark.parametrize(
    ("hours", "seconds", "said"),
    [
        (12, 600, ["set-resources: build: runtime: 30 * attempt (asked 720 min, used 10 min)"]),
        (12, 5, ["set-resources: build: runtime: 10 * attempt (asked 720 min, used 0.1 min)"]),
        (12, 12000, []),
        (1, 60, []),
        (1, 3300, ["set-resources: build: runtime: 90 * attempt (asked 60 min, used 55 min)"]),
    ],
)
def test_time_asked_against_used(tmp_path: Path, add: Add, hours: int, seconds: float, said: list[str]) -> None:
    add("build.a", seconds=seconds, memory=1500, slurm=slurm(limit_seconds=3600 * hours))
    assert advised(tmp_path) == said


@pytest.mark.parametrize(
    ("rule", "threads", "cpu", "seconds", "said"),
    [
        ("build", 16, 320, 100, ["set-threads: build: 7 (asked 16, used 3.2 on average)"]),
        ("predict", 4, 100, 100, ["prediction: threads: 2 in the config (asked 4, used 1.0 on average)"]),
        ("build", 2, 60, 100, []),
        ("build", 1, 1, 100, []),
        ("build", 16, 1, 20, []),
    ],
)
def test_threads_asked_against_used(
    tmp_path: Path, add: Add, rule: str, threads: int, cpu: float, seconds: float, said: list[str]
) -> None:
    add(f"{rule}.a", seconds=seconds, cpu=cpu, threads=threads)
    assert advised(tmp_path) == said


def test_the_job_that_needs_most_decides_for_its_rule(tmp_path: Path, add: Add) -> None:
    add("build.small", memory=100, slurm=slurm("1", memory_mb=16000))
    add("build.large", memory=6000, slurm=slurm("2", memory_mb=16000))
    assert advised(tmp_path) == []


def test_what_a_later_success_did_with_other_settings_counts(tmp_path: Path, add: Add) -> None:
    add("build.a", 10, memory=3900, outcome="failed", slurm=slurm("1"))
    add("build.a", 300, memory=3900, slurm=slurm("2", memory_mb=8000))
    assert advised(tmp_path) == ["set-resources: build: mem_mb: 6500 * attempt (asked 4,000 MB, used 3,900 MB)"]
    add("build.a", 600, memory=3900, slurm=slurm("3", memory_mb=6500))
    assert advised(tmp_path) == []


def test_what_came_from_the_cache_later_says_nothing_of_what_is_needed(tmp_path: Path, add: Add) -> None:
    add("build.a", 10, memory=3900, slurm=slurm("1"))
    add("build.a", 300, memory=100, outcome="restored", slurm=slurm("2", 290, 295))
    assert advised(tmp_path) == ["set-resources: build: mem_mb: 6500 * attempt (asked 4,000 MB, used 3,900 MB)"]
    add("score.b", 400, memory=100, slurm=slurm("2", 290, 295, memory_mb=9000))  # in one job with what was spared
    assert len(advised(tmp_path)) == 1


def test_a_training_that_was_stopped_and_went_on_needed_more_than_its_last_part(tmp_path: Path, add: Add) -> None:
    add("tune.a", 10, 3000, "stopped", memory=3900, slurm=slurm("1", limit_seconds=86400))
    add("tune.a", 4000, 600, memory=3000, slurm=slurm("1", 3020, 3990, limit_seconds=86400))
    assert advised(tmp_path) == []


def test_what_may_fail_is_told_before_what_is_wasted(tmp_path: Path, add: Add) -> None:
    add("a", seconds=3000, memory=10, slurm=slurm("1", memory_mb=64000, limit_seconds=36000))
    add("b", seconds=30, memory=3900, slurm=slurm("2"))
    assert [text.split(":")[1] for text in advised(tmp_path)] == [" b", " a", " a"]


def test_the_page_shows_every_rule_and_job_and_loads_nothing(tmp_path: Path, add: Add) -> None:
    add("tune.<b>m", slurm=slurm(gpus=2), node="g1")
    add("score.a")
    found = table(tmp_path)
    html = page.render_costs(found, ["set-threads: <x>"], (3, 7200.0))
    assert "&lt;b&gt;m" in html and "<b>m" not in html and "set-threads: &lt;x&gt;" in html
    assert "Outputs of 3 jobs were taken from the cache: they took 2 h to compute." in html
    assert ">GPU h<" in html and ">Queue<" in html and ">g1<" in html
    assert not re.search(r"https?://|@import|url\(|<script|src=", html)
    local = page.render_costs([row for row in found if row["rule"] == "score"], [], (0, 0.0))
    assert not [head for head in (">GPU h<", ">Queue<", "SLURM job") if head in local]


def call(results: Path, *more: str, ok: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--results", str(results), *more], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout + done.stderr


def test_the_program_writes_both_and_tells_it_in_a_few_lines(tmp_path: Path, add: Add) -> None:
    for number in range(20):
        add(f"rule{number:02}.a", seconds=number + 1, memory=10, slurm=slurm(str(number), memory_mb=9000, limit_seconds=36000))
    said = call(tmp_path).splitlines()
    assert len(said) <= 15
    assert [line.split()[0] for line in said[1:9]] == [f"rule{number}" for number in range(19, 11, -1)]
    assert said[9].startswith("12 more rules") and said[10].split()[:2] == ["all", "20"]
    assert "37 more to change, and each job:" in said[-1]
    assert table_io.read_table(tmp_path / "costs.parquet", "costs").num_rows == 20
    assert "rule00" in (tmp_path / "costs.html").read_text()
    assert {p.name for p in tmp_path.iterdir()} <= set(UNTRACKED_NAMES)


def test_a_run_that_came_from_the_cache_alone(tmp_path: Path) -> None:
    times = {"start": at(0), "end": at(60)}
    for name, restored in (("a", {"restored": {"at": at(99), "host": "vm"}}), ("b", {})):
        job_record.write_record(tmp_path / f"{name}.prov.json", complete_record(**times, **restored))
    job_record.write_record(
        tmp_path / "newer.prov.json", complete_record(format_version=job_record.RECORD_VERSION + 1, restored={})
    )
    (tmp_path / "broken.prov.json").write_text("{}")
    said = call(tmp_path, "--parquet", f"{tmp_path}/c.parquet", "--html", f"{tmp_path}/c.html")
    assert said.count("1 records are not counted; the first:") == 1
    assert f"newer.prov.json: was written in format version {job_record.RECORD_VERSION + 1}" in said
    assert "from the cache: outputs of 1 jobs, which took 1 min to compute" in said
    assert "No program has run" in (tmp_path / "c.html").read_text()
    assert table_io.read_table(tmp_path / "c.parquet", "costs").num_rows == 0


def test_lines_of_another_format_version_are_told_and_not_counted(
    tmp_path: Path, add: Add, caplog: pytest.LogCaptureFixture
) -> None:
    add("a.x", format_version=2)
    add("a.y", format_version=1)
    add("a.z")
    assert [row["job"] for row in table(tmp_path)] == ["y", "z"]
    assert caplog.messages == [
        f"{tmp_path}/logs/a.x.runs.jsonl: 1 lines of format version 2 are not counted: this checkout reads version 1"
    ]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "no such folder: run the workflow first" in call(tmp_path / "x", ok=False)

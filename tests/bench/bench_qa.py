"""Speed and memory of making the paper's 83.2K questions from findings in bulk. Run: python tests/bench/bench_qa.py [SHARE].

generate_qa of the six sources, two at a time, then merge_qa, each as the workflow calls it; and how much longer the same
takes of half the findings: what is linear takes twice as long for twice as many. SHARE, 1 by default, scales the cohorts.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from medmim.config.run_config import load_config
from medmim.config.source_plugins import SOURCES
from medmim.provenance.code_digest import WORKFLOW
from medmim.tables import table_io

ROOT = WORKFLOW.parent
sys.path.insert(0, str(ROOT / "tests"))
import bulk  # noqa: E402
from config_files import config_file  # noqa: E402

AT_ONCE = 2
RUN = load_config(ROOT / "config/config.yaml")
SPLITS = ("train", "benchmark", "pretrain", "rejected")


def build_command(program: str, cfg: dict[str, object], *options: object) -> list[str]:
    return [sys.executable, str(WORKFLOW / "scripts" / program), "--cfg", config_file(cfg), *map(str, options)]


class ProcessMonitor:
    """Runs commands so many at a time: seconds and seconds of CPU of each, most memory of each and of all together.

    Memory is looked at 50 times a second: the system's own maximum of a child counts what its parent held before the exec.
    """

    def __init__(self) -> None:
        self.peak_total_bytes = 0
        self.peak_bytes: dict[str, int] = {}
        self.seconds_spent: dict[str, tuple[float, float]] = {}

    def run_commands(self, commands: dict[str, list[str]], at_once: int = 1) -> None:
        waiting, running = list(commands.items()), dict[str, tuple[int, float]]()
        while waiting or running:
            while waiting and len(running) < at_once:
                name, argv = waiting.pop(0)
                running[name] = subprocess.Popen(argv, stderr=subprocess.DEVNULL).pid, time.perf_counter()
            rss_by_name = {name: psutil.Process(pid).memory_info().rss for name, (pid, _) in running.items()}
            self.peak_total_bytes = max(self.peak_total_bytes, sum(rss_by_name.values()))
            for name, rss in rss_by_name.items():
                self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), rss)
            for name, (pid, start) in list(running.items()):
                ended, status, used = os.wait4(pid, os.WNOHANG)
                if ended:
                    assert status == 0, commands[name]
                    self.seconds_spent[name] = time.perf_counter() - start, used.ru_utime + used.ru_stime
                    del running[name]
            time.sleep(0.02)


def build_cfg(source: str) -> dict[str, object]:
    """The part of the config that generate_qa of a source gets."""
    own = {"composed_images": RUN.qa.composed_images} if source == "pmc" else {}
    keys = ("benchmark_fraction", "open_fraction", "option_order", "wordings")
    options = {key: getattr(RUN.qa, key) for key in keys}
    return {"seed": RUN.seed, "sets": SOURCES[source].list_sets(), **options, **own, "pretrain": False}


def measure_run(folder: Path, share: float) -> tuple[float, ProcessMonitor]:
    """Seconds from findings to splits; the findings are not counted."""
    tables_by_source = {c.source: c.write_tables(folder) for c in bulk.draw_cohorts(share)}
    monitor = ProcessMonitor()
    generate = {
        source: build_command(
            "generate_qa.py", build_cfg(source), "--source", source, "--images", paths["images"], "--findings", paths["findings"],
            "--qa", folder / f"{source}.parquet",
        )
        for source, paths in sorted(tables_by_source.items(), key=lambda item: -item[1]["findings"].stat().st_size)
    }  # fmt: skip
    outputs = [option for name in SPLITS for option in (f"--{name}", folder / f"{name}.parquet")]
    counts = {part: getattr(RUN.qa, part).model_dump() for part in ("train", "benchmark")}
    start = time.perf_counter()
    monitor.run_commands(generate, AT_ONCE)
    merge = build_command(
        "merge_qa.py", {"seed": RUN.seed, **counts}, "--qa", *(folder / f"{s}.parquet" for s in generate), *outputs
    )
    monitor.run_commands({"merge_qa": merge})
    return time.perf_counter() - start, monitor


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    spent = {}
    for part in (share / 2, share):
        with tempfile.TemporaryDirectory() as name:
            spent[part], monitor = measure_run(Path(name), part)
            if part == share:
                splits = {
                    s: table_io.read_table(Path(name) / f"{s}.parquet", "qa", ["set"])["set"].to_pylist() for s in SPLITS[:2]
                }
    for name, (seconds, cpu) in monitor.seconds_spent.items():
        print(f"{name:10} {seconds:6.1f} s, {cpu:5.1f} s of CPU, {monitor.peak_bytes[name] / 2**20:5.0f} MiB")
    for split, sets in splits.items():
        print(f"{split}: {len(sets)} (" + ", ".join(f"{s} {sets.count(s)}" for s in dict.fromkeys(sets)) + ")")
    total = sum(map(len, splits.values()))
    cpu = sum(used for _, used in monitor.seconds_spent.values())
    print(f"{total} questions in {spent[share]:.1f} s, {cpu:.1f} s of CPU: {total / spent[share]:.0f} a second")
    print(f"most memory of all together: {monitor.peak_total_bytes / 2**20:.0f} MiB")
    print(f"ratio to half the findings: {spent[share] / spent[share / 2]:.2f} times the time")


if __name__ == "__main__":
    main()

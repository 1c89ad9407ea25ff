"""What a job costs through Snakemake's SLURM executor beside sbatch of the same command, on the tests' cluster in one run.

Run as root: python tests/bench/bench_slurm.py [JOBS]. Each way runs the same jobs, one after the other and all at once, with our
profile and with that of the tests, which asks more often. Of a job: from its submission to its being known as done.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/slurm"))
from cluster import Cluster, run_client, wait_until  # noqa: E402

COMMAND = "date > {output}"
SNAKEFILE = """
N = int(config["count"])
rule all:
    input: expand("{i}.txt", i=range(N))
rule job:
    input: lambda w: [f"{int(w.i) - 1}.txt"] if config.get("chain") and int(w.i) else []
    output: "{i}.txt"
    shell: "COMMAND"
"""
PROFILES = {"our profile": ["slurm"], "asked after 1 s": ["slurm", "tests/slurm/profile"]}


def time_sbatch(folder: Path, count: int, chain: bool) -> float:
    """Seconds until all are done, by sbatch and squeue."""
    start, jobs = time.perf_counter(), []
    for i in range(count):
        after = [f"--dependency=afterok:{jobs[-1]}"] if chain and jobs else []
        wrap = COMMAND.format(output=folder / f"{i}.txt")
        jobs.append(run_client("sbatch", "--parsable", "--mem=1000", f"--output={folder}/%j", *after, f"--wrap={wrap}").strip())
    wait_until(lambda: not run_client("squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING"), "jobs to end", 600)
    assert len(list(folder.glob("*.txt"))) == count
    return time.perf_counter() - start


def time_snakemake(folder: Path, count: int, chain: bool, profiles: list[str]) -> float:
    """The same through Snakemake, less what it takes with nothing to do."""
    (folder / "Snakefile").write_text(SNAKEFILE.replace("COMMAND", COMMAND))
    values = {}
    for profile in profiles:
        values |= yaml.safe_load((ROOT / profile / "config.yaml").read_text())
    for named in ("groups", "set-resources"):  # of rules that are not here
        values.pop(named, None)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    words = [sys.executable, "-m", "snakemake", "--directory", folder, "--snakefile", folder / "Snakefile", "--profile", folder,
             "--set-resources", "job:mem_mb=1000", "--config", f"count={count}", f"chain={int(chain)}"]  # fmt: skip
    run_seconds = []
    for _ in range(2):
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}  # where Snakemake finds our executor
        completed = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        if completed.returncode:
            sys.exit(completed.stderr)
        run_seconds.append(time.perf_counter() - start)
    return run_seconds[0] - run_seconds[1]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with Cluster(), tempfile.TemporaryDirectory() as top:
        for chain in (True, False):
            each = f"{count} jobs, {'one after the other' if chain else 'all at once'}"
            ways = {"sbatch": lambda folder, chain=chain: time_sbatch(folder, count, chain)}
            for name, profiles in PROFILES.items():
                ways[f"snakemake, {name}"] = lambda folder, chain=chain, p=profiles: time_snakemake(folder, count, chain, p)
            rounds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(1 if chain else 3):
                for name, way in ways.items():  # in turn: on a shared machine only what ran side by side compares
                    rounds[name].append(way(Path(tempfile.mkdtemp(dir=top))))
            print(each)
            base = statistics.median(rounds["sbatch"])
            for name, took in rounds.items():
                seconds = statistics.median(took)
                print(f"  {name:45} {seconds:6.1f} s, {seconds / count:5.2f} s a job, {seconds / base:5.1f} times sbatch")


if __name__ == "__main__":
    main()

"""What a job costs through Snakemake's SLURM executor beside sbatch of the same command, on the tests' cluster in one run.

Run as root: python tests/bench/bench_slurm.py [CASE ...], a case being chain, few or many; without, all of them. Each way runs
the same jobs with our profile. Of a job: from its submission to its being known as done. And how often squeue was asked.
"""

import os
import shutil
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
CASES = {"chain": (10, True), "few": (20, False), "many": (300, False)}
"""Number of jobs, and whether one follows the other."""


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


def time_snakemake(folder: Path, count: int, chain: bool) -> tuple[float, int]:
    """The same through Snakemake, less what it takes with nothing to do; and the questions to squeue."""
    (folder / "Snakefile").write_text(SNAKEFILE.replace("COMMAND", COMMAND))
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    for named in ("groups", "set-resources"):  # of rules that are not here
        del profile[named]
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    questions, squeue = folder / "questions", folder / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho >> {questions}\nexec {shutil.which("squeue")} "$@"\n')
    squeue.chmod(0o755)
    words = [sys.executable, "-m", "snakemake", "--directory", folder, "--snakefile", folder / "Snakefile", "--profile", folder,
             "--set-resources", "job:mem_mb=1000", "--config", f"count={count}", f"chain={int(chain)}"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "PATH": f"{squeue.parent}:{os.environ['PATH']}"}
    run_seconds = []
    for _ in range(2):
        start = time.perf_counter()
        completed = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        if completed.returncode:
            sys.exit(completed.stderr)
        run_seconds.append(time.perf_counter() - start)
    return run_seconds[0] - run_seconds[1], len(questions.read_text().splitlines())


def main() -> None:
    with Cluster(), tempfile.TemporaryDirectory() as top:
        for name in sys.argv[1:] or CASES:
            count, chain = CASES[name]
            base = time_sbatch(Path(tempfile.mkdtemp(dir=top)), count, chain)
            seconds, questions = time_snakemake(Path(tempfile.mkdtemp(dir=top)), count, chain)
            print(f"{count} jobs, {'one after the other' if chain else 'all at once'}")
            for way, took in (("sbatch", base), ("snakemake", seconds)):
                print(f"  {way:10} {took:6.1f} s, {took / count:5.2f} s a job, {took / base:5.1f} times sbatch")
            print(f"  squeue was asked {questions} times, every {seconds / questions:.1f} s", flush=True)


if __name__ == "__main__":
    main()

"""Small jobs of a Snakefile that is none of ours, on the cluster: quick, and each runs as long as a test wants."""

import os
from pathlib import Path

import yaml
from cluster import Cluster
from submit import SnakemakeRun, find_client

ROOT = Path(__file__).parents[2]
SNAKEFILE = """
rule all:
    input: "a.txt", "b.txt"
rule first:
    output: "{name}.txt"
    resources: mem_mb=1000, runtime=2
    group: config.get("group")
    shell: "echo run >> {wildcards.name}.runs; until [ -e go ]; do sleep 0.2; done; date > {output}"
rule last:
    input: "a.txt"
    output: "last"
    resources: mem_mb=1000, runtime=2
    group: config.get("group")
    shell: "date > {output}"
"""


class QueueRun(SnakemakeRun):
    """Snakemake on a small Snakefile, with our profile. A job runs until there is a file `go`."""

    def __init__(self, folder: Path, *arguments: str | Path, interval: int = 1, **environment: str) -> None:
        profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
        for name in ("groups", "set-resources"):  # of rules that are not here
            del profile[name]
        profile["retries"] = 0
        profile["slurm-medmim-init-seconds-before-status-checks"] = interval
        folder.joinpath("profile").mkdir(exist_ok=True)
        folder.joinpath("profile/config.yaml").write_text(yaml.safe_dump(profile))
        folder.joinpath("Snakefile").write_text(SNAKEFILE)
        options = ("--profile", folder / "profile", "--nocolor")
        self.start(folder, *arguments, *options, snakefile=folder / "Snakefile", **environment)

    def list_jobs(self, cluster: Cluster) -> dict[str, dict[str, str]]:
        """Its jobs, oldest first, with what the controller knows of them."""
        jobs = {name: job for name, job in cluster.list_jobs().items() if job["WorkDir"] == str(self.folder)}
        return dict(sorted(jobs.items(), key=lambda item: int(item[0])))

    def let_go(self) -> str:
        """Let the jobs end; what was said."""
        self.folder.joinpath("go").touch()
        return self.wait_for_end()

    def count_runs(self, name: str) -> int:
        return len(self.folder.joinpath(f"{name}.runs").read_text().splitlines())


def replace_client(folder: Path, name: str, script: str) -> str:
    """Put a script before a client of SLURM's, which it calls as $REAL; the PATH with it."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    programs.joinpath(name).write_text(f"#!/bin/sh\nREAL={find_client(name)}\n{script}\n")
    programs.joinpath(name).chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"

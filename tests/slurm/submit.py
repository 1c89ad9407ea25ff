"""How tests run Snakemake on the cluster, and what they look at afterwards."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from cluster import TIMEOUT_SECONDS, wait_until

from medmim.common import files
from runs import MINI, list_snakemake_logs, start_snakemake

RUN_PATH = Path("results/mini")
FAST_PROFILE = Path(__file__).with_name("profile")


class SnakemakeRun:
    """Snakemake with our SLURM profile in the background; without a cache, so that what is missing runs."""

    def __init__(
        self, folder: Path, *arguments: str | Path, config: Path = MINI, fast: bool = True, site: Path | None = None
    ) -> None:
        profiles = ["slurm", *([FAST_PROFILE] if fast else []), *([site] if site else [])]
        words = [word for profile in profiles for word in ("--profile", profile)]
        self.start(folder, *arguments, *words, "--configfile", config)

    def start(self, folder: Path, *arguments: str | Path, snakefile: Path | None = None, **environment: str) -> None:
        """Start it, on our Snakefile or another."""
        self.folder, self.log = folder, folder / "said"
        with self.log.open("ab") as log:
            self._log_offset, self._earlier_logs = log.tell(), list_snakemake_logs(folder)
            environment = {"MEDMIM_CACHE": ""} | environment
            self.process = start_snakemake(folder, *arguments, output=log, snakefile=snakefile, **environment)

    @property
    def output(self) -> str:
        """What Snakemake has written into its own log, then what is on the screen."""
        own_logs = [log for log in list_snakemake_logs(self.log.parent) if log not in self._earlier_logs]
        return "".join(log.read_text() for log in own_logs) + self.log.read_bytes()[self._log_offset :].decode()

    def wait_for_output(self, text: str) -> None:
        """Wait until it says something."""
        wait_until(
            lambda: text in self.output or self.process.poll() is not None, lambda: f"Snakemake to say {text!r}:\n{self.output}"
        )
        assert text in self.output, self.output

    def wait_for_end(self, *, ok: bool = True, seconds: float = TIMEOUT_SECONDS) -> str:
        """Wait for its end, as it should be; what it said."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"Snakemake did not end in {seconds:.0f} s:\n{self.output}") from None
        assert (self.process.returncode == 0) is ok, self.output
        return self.output

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def find_client(name: str) -> str:
    """Path of a client of SLURM's."""
    path = shutil.which(name)
    assert path is not None
    return path


def copy_run_without(finished_run: Path, folder: Path, *removed_names: str) -> Path:
    """A working directory like that of a finished run, but for some artifacts."""
    shutil.copytree(
        finished_run / RUN_PATH, folder / RUN_PATH, symlinks=True, ignore=shutil.ignore_patterns("logs", "checkpoints")
    )
    for name in removed_names:
        (folder / RUN_PATH / name).unlink()
        (folder / RUN_PATH / f"{name}{files.SIDECAR_SUFFIX}").unlink()
    return folder


def find_unfinished(folder: Path) -> list[Path]:
    """What is half written, or was left by a run of a job that did not end."""
    return [p for p in (folder / RUN_PATH).rglob("*") if ".partial" in p.name]


def list_outcomes(folder: Path, rule: str) -> list[str]:
    """How each run of a rule's program in this folder ended, in the order of their starts; "killed" where it could not say."""
    lines = [json.loads(line) for path in (folder / RUN_PATH / "logs").glob(f"{rule}.*.jsonl") for line in path.open()]
    outcome_by_run = {line["run"]: line["outcome"] for line in lines if line["event"] == "end"}
    return [
        outcome_by_run.get(line["run"], "killed")
        for line in sorted(lines, key=lambda line: line["at"])
        if line["event"] == "start"
    ]

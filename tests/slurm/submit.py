"""How tests run Snakemake on the cluster, and what they look at afterwards."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from cluster import PATIENCE, until

from medmim.common import files
from runs import MINI, start_snakemake

RUN = Path("results/mini")
FAST = Path(__file__).with_name("profile")


class Submitted:
    """Snakemake with our SLURM profile in the background; without a cache, so that what is missing runs."""

    def __init__(
        self, folder: Path, *arguments: str | Path, config: Path = MINI, fast: bool = True, site: Path | None = None
    ) -> None:
        self.log = folder / "said"
        profiles = ["slurm", *([FAST] if fast else []), *([site] if site else [])]
        words = [word for profile in profiles for word in ("--profile", profile)]
        with self.log.open("ab") as log:
            self._before = log.tell()
            self.process = start_snakemake(folder, *arguments, *words, "--configfile", config, said=log, MEDMIM_CACHE="")

    @property
    def said(self) -> str:
        return self.log.read_bytes()[self._before :].decode()

    def hear(self, what: str) -> None:
        """Wait until it says something."""
        until(lambda: what in self.said or self.process.poll() is not None, lambda: f"Snakemake to say {what!r}:\n{self.said}")
        assert what in self.said, self.said

    def end(self, *, ok: bool = True, seconds: float = PATIENCE) -> str:
        """Wait for its end, as it should be; what it said."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"Snakemake did not end in {seconds:.0f} s:\n{self.said}") from None
        assert (self.process.returncode == 0) is ok, self.said
        return self.said

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def unlock(folder: Path) -> None:
    Submitted(folder, "--unlock").end()


def without(done: Path, folder: Path, *lost: str) -> Path:
    """A working directory like that of a finished run, but for some artifacts."""
    shutil.copytree(done / RUN, folder / RUN, symlinks=True, ignore=shutil.ignore_patterns("logs", "checkpoints"))
    for name in lost:
        (folder / RUN / name).unlink()
        (folder / RUN / f"{name}{files.SIDECAR}").unlink()
    return folder


def unfinished(folder: Path) -> list[Path]:
    """What is half written, or was left by a run of a job that did not end."""
    return [p for p in (folder / RUN).rglob("*") if ".partial" in p.name]


def outcomes(folder: Path, rule: str) -> list[str]:
    """How each run of a rule's program in this folder ended, in the order of their starts; "killed" where it could not say."""
    lines = [json.loads(line) for path in (folder / RUN / "logs").glob(f"{rule}.*.jsonl") for line in path.open()]
    ended = {line["run"]: line["outcome"] for line in lines if line["event"] == "end"}
    return [ended.get(line["run"], "killed") for line in sorted(lines, key=lambda line: line["at"]) if line["event"] == "start"]

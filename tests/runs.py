"""How tests run the real workflow."""

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import IO

import pytest
from filelock import FileLock

from medmim.common import files
from medmim.provenance.audit import UNTRACKED, audit

ROOT = Path(__file__).parents[1]
MINI = ROOT / "tests/workflow/mini.yaml"
Snakemake = Callable[..., subprocess.CompletedProcess[str]]

CHECKOUT = (
    ".gitignore",
    "Snakefile",
    "workflow",
    "config",
    "profiles",
    "envs",
    "requirements.lock",
    "slurm",
    "audit",
    "crate",
    "export",
    "plan",
    "README.md",
    "CITATION.cff",
)


def copy_checkout(target: Path) -> None:
    """The workflow as it stands, without what it was tested with."""
    for name in CHECKOUT:
        if (ROOT / name).is_dir() and not (ROOT / name).is_symlink():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


@cache
def checkout() -> Path:
    """A clean repository of the workflow as it stands: that of the tests may hold what is not committed, which audits name."""
    folder = Path(tempfile.mkdtemp(prefix="checkout-"))
    atexit.register(shutil.rmtree, folder)
    copy_checkout(folder)
    for words in ("init", "add --all", "-c user.name=test -c user.email=test@example.org commit --message test"):
        subprocess.run(["git", "-C", folder, *words.split()], check=True, capture_output=True)
    return folder


def start_snakemake(
    folder: Path, *arguments: str | Path, said: int | IO[bytes] = subprocess.PIPE, **environment: str
) -> "subprocess.Popen[str]":
    """Snakemake on our Snakefile with `folder` as the working directory, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--snakefile", checkout() / "Snakefile", "--directory", folder, *arguments],
        cwd=checkout(), env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True, start_new_session=True,
        stdout=said, stderr=said,
    )  # fmt: skip


def call_snakemake(folder: Path, *arguments: str | Path, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Snakemake until it ends, with what it said."""
    run = start_snakemake(folder, *arguments, **environment)
    try:
        said = run.communicate()
    except BaseException:  # the test is stopped, and so is what it started
        os.killpg(run.pid, signal.SIGKILL)
        raise
    done = subprocess.CompletedProcess(run.args, run.returncode, *said)
    assert (done.returncode == 0) is ok, done.stdout[-3000:] + done.stderr[-6000:]
    return done


def artifacts(folder: Path, run: Path = Path("results/mini")) -> dict[str, str]:
    """Hash of every artifact of a run and of every file of the folders that artifacts stand for."""
    found = (p for p in (folder / run).rglob("*") if p.is_file() and p.relative_to(folder / run).parts[0] not in UNTRACKED)
    own = (p for p in found if not p.name.startswith(".") and not p.name.endswith(files.SIDECAR))
    return {str(p.relative_to(folder / run)): files.sha256(p) for p in own}


def faults(folder: Path, expected: Iterable[Path] = ()) -> list[dict[str, str]]:
    """What the audit of the mini run in a working directory finds, code aside: that of the tests may not be committed."""
    with contextlib.chdir(folder):
        found = audit(Path("results/mini"), expected)["faults"]
    return [f for f in found if f["kind"] not in ("uncommitted code", "other code")]


def finished(tmp_path_factory: pytest.TempPathFactory, config: Path, name: str) -> Path:
    """A working directory of one's own with a finished run, which is made once for all workers of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made, folder = shared / f"{name}.made", tmp_path_factory.mktemp(name)
    with FileLock(f"{made}.lock"):
        if not made.exists():
            call_snakemake(folder, "--configfile", config, "--cores", "2")
            shutil.copytree(folder, f"{made}.partial", symlinks=True)
            Path(f"{made}.partial").rename(made)
            return folder
    shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True)
    return folder

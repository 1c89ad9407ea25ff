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
from medmim.provenance.audit import UNTRACKED_NAMES, audit_run

ROOT = Path(__file__).parents[1]
MINI = ROOT / "tests/workflow/mini.yaml"
Snakemake = Callable[..., subprocess.CompletedProcess[str]]

CHECKOUT_NAME = "my repo's #1 é"
"""All that runs in tests runs from such a checkout, the demo among it."""
CHECKOUT_PATHS = (
    ".gitignore",
    "Snakefile",
    "workflow",
    "config",
    "profiles",
    "envs",
    "requirements.lock",
    "slurm",
    "README.md",
    "CITATION.cff",
)


def copy_checkout(target: Path) -> None:
    """The workflow as it stands, without what it was tested with."""
    for name in CHECKOUT_PATHS:
        if (ROOT / name).is_dir() and not (ROOT / name).is_symlink():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


@cache
def commit_checkout() -> Path:
    """A clean repository of the workflow as it stands: that of the tests may hold what is not committed, which audits name."""
    temporary = Path(tempfile.mkdtemp(prefix="checkout-"))
    atexit.register(shutil.rmtree, temporary)
    folder = temporary / CHECKOUT_NAME
    copy_checkout(folder)
    for words in ("init", "add --all", "-c user.name=test -c user.email=test@example.org commit --message test"):
        subprocess.run(["git", "-C", folder, *words.split()], check=True, capture_output=True)
    return folder


def start_snakemake(
    folder: Path,
    *arguments: str | Path,
    output: int | IO[bytes] = subprocess.PIPE,
    snakefile: Path | None = None,
    **environment: str,
) -> "subprocess.Popen[str]":
    """Snakemake on our Snakefile, or another, with `folder` as the working directory, in a process group of its own."""
    snakefile = snakefile or commit_checkout() / "Snakefile"
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--directory", folder, *arguments],
        cwd=commit_checkout(), env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True, start_new_session=True,
        stdout=output, stderr=output,
    )  # fmt: skip


def call_snakemake(
    folder: Path, *arguments: str | Path, ok: bool = True, snakefile: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Snakemake until it ends, with what it said."""
    run = start_snakemake(folder, *arguments, snakefile=snakefile, **environment)
    try:
        captured = run.communicate()
    except BaseException:  # the test is stopped, and so is what it started
        os.killpg(run.pid, signal.SIGKILL)
        raise
    completed = subprocess.CompletedProcess(run.args, run.returncode, *captured)
    assert (completed.returncode == 0) is ok, completed.stdout[-3000:] + completed.stderr[-6000:]
    return completed


def list_snakemake_logs(folder: Path) -> list[Path]:
    """Snakemake's own logs in a working directory, in order: they have what it says of jobs, which the screen has not."""
    return sorted((folder / ".snakemake/log").glob("*.log"))


def hash_artifacts(folder: Path, run: Path = Path("results/mini")) -> dict[str, str]:
    """Hash of every artifact of a run and of every file of the folders that artifacts stand for."""
    run_files = (
        p for p in (folder / run).rglob("*") if p.is_file() and p.relative_to(folder / run).parts[0] not in UNTRACKED_NAMES
    )
    artifact_paths = (p for p in run_files if not p.name.startswith(".") and not p.name.endswith(files.SIDECAR_SUFFIX))
    return {str(p.relative_to(folder / run)): files.hash_file(p) for p in artifact_paths}


def find_faults(folder: Path, expected: Iterable[Path] = ()) -> list[dict[str, str]]:
    """What the audit of the mini run in a working directory finds, code aside: that of the tests may not be committed."""
    with contextlib.chdir(folder):
        audit_faults = audit_run(Path("results/mini"), expected)["faults"]
    return [f for f in audit_faults if f["kind"] not in ("uncommitted code", "other code")]


def prepare_finished_run(tmp_path_factory: pytest.TempPathFactory, config: Path, name: str) -> Path:
    """A working directory of one's own with a finished run, which is made once for all workers of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    shared_run, folder = shared / f"{name}.made", tmp_path_factory.mktemp(name)
    with FileLock(f"{shared_run}.lock"):
        if not shared_run.exists():
            call_snakemake(folder, "--configfile", config, "--cores", "2")
            shutil.copytree(folder, f"{shared_run}.partial", symlinks=True)
            Path(f"{shared_run}.partial").rename(shared_run)
            return folder
    shutil.copytree(shared_run, folder, symlinks=True, dirs_exist_ok=True)
    return folder

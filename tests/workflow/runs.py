"""How tests run the real workflow."""

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

from medmim.audit import audit

ROOT = Path(__file__).parents[2]
MINI = ROOT / "tests/workflow/mini.yaml"
Snakemake = Callable[..., subprocess.CompletedProcess[str]]


CHECKOUT = (
    "Snakefile",
    "workflow",
    "config",
    "profiles",
    "envs",
    "requirements.lock",
    "slurm",
    "audit",
    "crate",
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


def call_snakemake(folder: Path, *arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Snakemake on our Snakefile with `folder` as the working directory."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", checkout() / "Snakefile", "--directory", folder, *arguments],
        cwd=checkout(), capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is ok, done.stdout[-3000:] + done.stderr[-6000:]
    return done


def faults(folder: Path, expected: Iterable[Path] = ()) -> list[dict[str, str]]:
    """What the audit of the mini run in a working directory finds, code aside: that of the tests may not be committed."""
    with contextlib.chdir(folder):
        found = audit(Path("results/mini"), expected)["faults"]
    return [f for f in found if f["kind"] not in ("uncommitted code", "other code")]


def finished(tmp_path_factory: pytest.TempPathFactory, config: Path, name: str) -> Path:
    folder = tmp_path_factory.mktemp(name)
    call_snakemake(folder, "--configfile", config, "--cores", "2")
    return folder

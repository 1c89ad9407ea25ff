"""Runs of the real workflow, shared by the tests that look at what they leave behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINI = ROOT / "tests/workflow/mini.yaml"
Snakemake = Callable[..., subprocess.CompletedProcess[str]]


def call_snakemake(folder: Path, *arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Snakemake on our Snakefile with `folder` as the working directory."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, *arguments],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is ok, done.stdout[-3000:] + done.stderr[-6000:]
    return done


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    return call_snakemake


def finished(tmp_path_factory: pytest.TempPathFactory, config: Path, name: str) -> Path:
    folder = tmp_path_factory.mktemp(name)
    call_snakemake(folder, "--configfile", config, "--cores", "2")
    return folder


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished mini run; tests leave it as they found it."""
    return finished(tmp_path_factory, MINI, "mini")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished demo run."""
    return finished(tmp_path_factory, ROOT / "config/demo.yaml", "demo")

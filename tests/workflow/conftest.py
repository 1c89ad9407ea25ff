"""Runs of the real workflow, shared by the tests that look at what they leave behind."""

from pathlib import Path

import pytest
from runs import MINI, ROOT, Snakemake, call_snakemake, finished


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    return call_snakemake


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished mini run; tests leave it as they found it."""
    return finished(tmp_path_factory, MINI, "mini")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished demo run."""
    return finished(tmp_path_factory, ROOT / "config/demo.yaml", "demo")

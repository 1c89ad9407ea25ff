"""Fixtures for all tests."""

import os
import signal
from pathlib import Path

import pytest

from medmim.provenance import cache
from runs import MINI, ROOT, Snakemake, call_snakemake, prepare_finished_run

os.environ.pop(cache.FOLDER_VARIABLE, None)  # nobody's cache is used
os.environ.pop(cache.LIMIT_VARIABLE, None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # begun in the background, all of it would ignore what tests send

SLOWEST_FILES = ("test_demo.py", "test_mutations.py", "test_faults_slurm.py")
"""Begun first: a worker has a file to itself, and the others would wait for it at the end."""
RELEASE_NAMES = ("Med_MIM_benchmark_Held_in_Comparison", "Med_MIM_benchmark_Held_out_ODIR", "Med_MIM_train_inherent_Comparison")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first."""
    items.sort(key=lambda item: SLOWEST_FILES.index(item.path.name) if item.path.name in SLOWEST_FILES else len(SLOWEST_FILES))


@pytest.fixture(scope="session")
def release_files() -> Path:
    """Folder with three of the authors' released files; the environment variable MEDMIM_RELEASE points elsewhere."""
    default = Path(__file__).resolve().parents[2] / "shared" / "medmim-release"
    folder = Path(os.environ.get("MEDMIM_RELEASE", default))
    missing = [f"{name}.json" for name in RELEASE_NAMES if not (folder / f"{name}.json").is_file()]
    if missing:
        pytest.fail(
            f"{folder} lacks {', '.join(missing)}: these tests read the authors' released files. "
            "Get them from github.com/Xikai97/Med-MIM and set MEDMIM_RELEASE to their folder."
        )
    return folder


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    return call_snakemake


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished mini run; tests leave it as they found it."""
    return prepare_finished_run(tmp_path_factory, MINI, "mini")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished demo run."""
    return prepare_finished_run(tmp_path_factory, ROOT / "config/demo.yaml", "demo")

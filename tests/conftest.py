"""Fixtures for all tests."""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from medmim.provenance import cache
from medmim.provenance.job import Job
from needs import NO_SKIPS_VARIABLE, RELEASE_VARIABLE, is_hidden_gap, is_slow_module, skip_what_lacks, skip_without_torch
from runs import MINI, ROOT, Snakemake, call_snakemake, prepare_finished_run

os.environ.pop(cache.FOLDER_VARIABLE, None)  # nobody's cache is used
os.environ.pop(cache.LIMIT_VARIABLE, None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # begun in the background, all of it would ignore what tests send

SLOWEST_FILES = ("test_whole_runs.py", "test_mutations.py", "test_faults_slurm.py")
"""Begun first: a worker has a file to itself, and the others would wait for it at the end."""
skipped_tests: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="only modules without models, processes and servers, see tests/needs.py"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick, modules of slow tests are not even imported, but those that the command line names."""
    is_module = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    is_named = any(config.invocation_params.dir / argument == collection_path for argument in config.args)
    return True if is_module and config.getoption("--quick") and not is_named and is_slow_module(collection_path) else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): skipped where the machine lacks one of these, see tests/needs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first; what the machine lacks is known before any test starts."""
    items.sort(key=lambda item: SLOWEST_FILES.index(item.path.name) if item.path.name in SLOWEST_FILES else len(SLOWEST_FILES))
    skip_what_lacks(items)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return skip_without_torch(report, report.call)  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[object]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return skip_without_torch((yield), call)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if is_hidden_gap(report):
        skipped_tests.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if is_hidden_gap(report):
        skipped_tests.append(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if skipped_tests and os.environ.get(NO_SKIPS_VARIABLE):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped_tests and os.environ.get(NO_SKIPS_VARIABLE):
        terminalreporter.write_line(f"{NO_SKIPS_VARIABLE} is set, and {len(skipped_tests)} tests or files were skipped", red=True)


@pytest.fixture(scope="session", autouse=True)
def process() -> Iterator[None]:
    """Programs run in the tests' own process find modules there that other tests imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "_check_modules", lambda job: None)
        yield


@pytest.fixture(scope="session")
def release_files() -> Path:
    """Folder with three of the authors' released files."""
    return Path(os.environ[RELEASE_VARIABLE])


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

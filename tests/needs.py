"""What some tests need and a machine may lack: known at collection, skipped with what to do about it.

A test says `@pytest.mark.needs("compiler")`; fixtures that stand for a need are in NEED_BY_FIXTURE. With MEDMIM_NO_SKIPS=1, as in
`.ci/run`, a test that was skipped fails the session, but for want of the authors' files where no folder is named for them.
"""

import ast
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import pytest
from cluster import find_obstacle

NO_SKIPS_VARIABLE = "MEDMIM_NO_SKIPS"
RELEASE_VARIABLE = "MEDMIM_RELEASE"
RELEASE_FILES = tuple(
    f"{name}.json"
    for name in ("Med_MIM_benchmark_Held_in_Comparison", "Med_MIM_benchmark_Held_out_ODIR", "Med_MIM_train_inherent_Comparison")
)
GET_RELEASE = f"get the authors' files from github.com/Xikai97/Med-MIM and set {RELEASE_VARIABLE} to their folder"
NO_RELEASE = f"{RELEASE_VARIABLE} is not set: {GET_RELEASE}"
TESTS = Path(__file__).parent
TORCH_PACKAGES = ("torch", "transformers", "peft", "accelerate", "deepspeed")
"""Left out where the tests run on another Python than the environment's: torch, and what is of no use without."""

NO_TORCH = "no torch: pip install -r requirements.lock"
SLOW_IMPORTS = {*TORCH_PACKAGES, "subprocess", "multiprocessing", "http", "hypothesis", "qa_made"}
"""Tests of models, of other processes, of servers, of many random cases, and of whole phantom cohorts."""


def _missing_release() -> str:
    if not (folder := os.environ.get(RELEASE_VARIABLE)):
        return NO_RELEASE
    missing = [name for name in RELEASE_FILES if not Path(folder, name).is_file()]
    return f"{RELEASE_VARIABLE}={folder} lacks {', '.join(missing)}: {GET_RELEASE}" if missing else ""


def _missing_compiler() -> str:
    return "" if shutil.which("g++") else "no g++, by which DeepSpeed builds an operator: apt-get install g++"


def _missing_namespace(*options: str, remedy: str) -> str:
    """A namespace of one's own: some containers and systems give none to anyone but root, or to no one."""
    if shutil.which("unshare") is None:
        return "no unshare: apt-get install util-linux"
    completed = subprocess.run(["unshare", *options, "true"], capture_output=True, check=False)
    return "" if completed.returncode == 0 else f"this user gets no namespace by unshare {' '.join(options)}: {remedy}"


def _missing_mounts() -> str:
    return _missing_namespace("--map-root-user", "--mount", remedy="sudo make test")


def _missing_user_namespaces() -> str:
    """To be a user without a name."""
    return _missing_namespace("--user", "--map-user=12345", remedy="sysctl kernel.unprivileged_userns_clone=1")


def _missing_root() -> str:
    return "" if os.geteuid() == 0 else "to be two users takes root: sudo make test"


def _missing_torch() -> str:
    return "" if find_spec("torch") else NO_TORCH


def _missing_git() -> str:
    return "" if shutil.which("git") else "no git: apt-get install git"


NEEDS: dict[str, Callable[[], str]] = {
    "release": cache(_missing_release),
    "slurm": cache(find_obstacle),
    "compiler": cache(_missing_compiler),
    "mounts": cache(_missing_mounts),
    "root": cache(_missing_root),
    "user_namespaces": cache(_missing_user_namespaces),
    "torch": cache(_missing_torch),
    "git": cache(_missing_git),
}
"""Functions that say what is missing and what to do, empty where nothing is; by the word of the marker."""
NEED_BY_FIXTURE = {"release_files": "release", "cluster": "slurm", "running": "slurm", "shared": "root"}


def skip_what_lacks(items: list[pytest.Item]) -> None:
    """Mark every test that needs what this machine lacks as skipped."""
    for item in items:
        needs = {name for marker in item.iter_markers("needs") for name in marker.args}
        needs |= {NEED_BY_FIXTURE[name] for name in getattr(item, "fixturenames", ()) if name in NEED_BY_FIXTURE}
        if reasons := [reason for name in sorted(needs) if (reason := NEEDS[name]())]:
            item.add_marker(pytest.mark.skip(reason="; ".join(reasons)))


def is_hidden_gap(report: pytest.CollectReport | pytest.TestReport) -> bool:
    """Tell whether something was skipped that a machine can be made to run. The authors' files are not ours to bring along."""
    is_only_release = isinstance(report.longrepr, tuple) and report.longrepr[2] == f"Skipped: {NO_RELEASE}"
    return report.skipped and not hasattr(report, "wasxfail") and not is_only_release


@cache
def is_slow_module(path: Path) -> bool:
    """Tell whether a module of tests, or a helper that it imports, imports what makes tests slow: they are not quick."""
    imports = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {n.name for node in imports if isinstance(node, ast.Import) for n in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    helpers = (folder / f"{name}.py" for name in names for folder in (TESTS, TESTS / "unit"))
    return bool({name.partition(".")[0] for name in names} & SLOW_IMPORTS) or any(
        map(is_slow_module, filter(Path.is_file, helpers))
    )


def is_torch_missing(error: BaseException | None) -> bool:
    """Tell whether an import failed for want of torch alone: such a test is skipped where there is no torch."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in TORCH_PACKAGES:
            return find_spec("torch") is None
        error = error.__cause__ or error.__context__
    return False


Report = TypeVar("Report", pytest.CollectReport, pytest.TestReport)


def skip_without_torch(report: Report, call: pytest.CallInfo[object]) -> Report:
    """The report of a test or a module of tests; as skipped where it failed for want of torch."""
    if report.failed and call.excinfo is not None and is_torch_missing(call.excinfo.value):
        report.outcome, report.longrepr = "skipped", (report.nodeid, 0, f"Skipped: {NO_TORCH}")
    return report

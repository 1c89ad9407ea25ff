import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from medmim.snakemake_hooks import versions
from medmim.snakemake_hooks.versions import TESTED_VERSIONS, find_untested_versions
from runs import MINI, ROOT


def fake(folder: Path, package: str, version: str) -> None:
    """Let a package seem to be installed in another version, to what has the folder in front of its path."""
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


def test_what_is_installed_is_tested() -> None:
    assert find_untested_versions() == []


@pytest.mark.parametrize(
    ("version", "is_tested"),
    [
        ("9.19.9", False),
        ("9.20", True),
        ("9.20.0", True),
        ("9.27.10+local", True),
        ("9.28.0", False),
        ("10.0.0", False),
        ("8", False),
    ],
)
def test_a_range(monkeypatch: pytest.MonkeyPatch, version: str, is_tested: bool) -> None:
    monkeypatch.setattr(versions, "TESTED_VERSIONS", {"snakemake": ("9.20", "9.28")})
    monkeypatch.setattr(importlib.metadata, "version", lambda package: version)
    expected = [f"snakemake {version} is installed, which is not in the tested range >=9.20,<9.28"]
    assert find_untested_versions() == ([] if is_tested else expected)


LATER = """
import importlib.metadata, sys
from snakemake import cli

cli.get_argument_parser()  # plugins are loaded, and were found tested
installed = importlib.metadata.version
importlib.metadata.version = lambda name: {package!r: version!r}.get(name) or installed(name)
cli.main(sys.argv[1:])
"""
"""A Snakemake that has not found the executor plugin, and so comes to the Snakefile in a version that was not tested."""


@pytest.mark.parametrize(("package", "version"), [("snakemake", "9.14.0"), ("snakemake-executor-plugin-slurm", "3.0.0")])
@pytest.mark.parametrize("by_plugin", [True, False], ids=["by the plugin", "by the Snakefile"])
def test_one_line_says_what_to_install(tmp_path: Path, package: str, version: str, by_plugin: bool) -> None:
    path = [ROOT / "workflow"]
    start = ["-c", LATER.replace("package!r", repr(package)).replace("version!r", repr(version))]
    if by_plugin:
        fake(tmp_path, package, version)
        path, start = [tmp_path, *path], ["-m", "snakemake"]
    words = ["--snakefile", ROOT / "Snakefile", "--directory", tmp_path, "--configfile", MINI, "-n"]
    run = subprocess.run(
        [sys.executable, *start, *words], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
    )  # fmt: skip
    assert run.returncode == 1 and run.stdout == ""
    [line] = [line for line in run.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert line.startswith(f"Error: {package} {version} is installed, which is not in the tested range ")
    assert line.endswith(f"install the tested versions with: pip install -r {ROOT / 'requirements.lock'}")


def test_pyproject_and_the_snakefile_state_the_same_ranges() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {f"{package}>={first},<{end}" for package, (first, end) in TESTED_VERSIONS.items()} <= set(dependencies)
    [least] = re.findall(r'min_version\("(.*?)"\)', (ROOT / "Snakefile").read_text())
    assert least == TESTED_VERSIONS["snakemake"][0]


def test_pyproject_states_the_same_pythons() -> None:
    first, end = versions.TESTED_PYTHONS
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == f">={first},<{end}"


@pytest.mark.parametrize(("python", "fits"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 12), True), ((3, 14, 0), False)])
def test_another_python_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, python: tuple[int, ...], fits: bool) -> None:
    monkeypatch.setattr(sys, "version_info", python)
    monkeypatch.setattr(sys, "version", f"{'.'.join(map(str, python))} (main)")
    if fits:
        versions.require_tested_versions()
    else:
        with pytest.raises(SystemExit, match=r"^Error: Python 3\.1[04]\.[09] runs this .*make PYTHON=[^\n]*$"):
            versions.require_tested_versions()


@pytest.mark.parametrize("goal", ["demo", "test", "quick"])
def test_make_refuses_an_unfit_python_before_anything_else(tmp_path: Path, goal: str) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    old = tmp_path / "old python's #1"
    old.write_text("#!/bin/sh\nexit 0\n")  # one that says nothing, as one of another version does
    old.chmod(0o755)
    # A make that runs the tests, as `make test`, would have this one name its folder.
    words = ["make", "--no-print-directory", goal, f"PYTHON={old}".replace("#", "\\#")]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    [line] = run.stderr.splitlines()
    assert "Python 3.11, 3.12 or 3.13 is needed" in line and not (tmp_path / ".venv").exists()


def test_the_makefile_states_the_same_pythons() -> None:
    first, end = versions.TESTED_PYTHONS
    assert f"({first.replace('.', ', ')}) <= sys.version_info < ({end.replace('.', ', ')})" in (ROOT / "Makefile").read_text()


def test_the_lock_is_tested() -> None:
    locked = dict(re.findall(r"^([a-z-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.M))
    for package in TESTED_VERSIONS:
        assert locked[package] == importlib.metadata.version(package)

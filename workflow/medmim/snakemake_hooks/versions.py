"""Versions of Python, of Snakemake and its plugins whose internals this workflow uses, and that it was tested with.

Imports nothing but the standard library: it is asked before anything else is imported.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

LOCK_FILE = Path(__file__).parents[3] / "requirements.lock"
TESTED_VERSIONS = {
    "snakemake": ("9.20", "9.28"),
    "snakemake-executor-plugin-slurm": ("2.8", "2.9"),
    "snakemake-interface-executor-plugins": ("9.4", "10"),
    "snakemake-interface-logger-plugins": ("2.1", "3"),
}
"""First version that was tested, and first that was not, by package; as in pyproject.toml."""

TESTED_PYTHONS = ("3.11", "3.14")
"""First version of Python that was tested, and first that was not; as in pyproject.toml."""


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))[:3]


def find_untested_versions() -> list[str]:
    """Packages that are installed in a version that was not tested, or not at all, in words."""
    faults = []
    for package, (first, end) in TESTED_VERSIONS.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{package} is not installed")
            continue
        if not _parse_version(first) <= _parse_version(version) < _parse_version(end):
            faults.append(f"{package} {version} is installed, which is not in the tested range >={first},<{end}")
    return faults


def require_tested_versions() -> None:
    """Stop where a version was not tested, with one line that says what to install."""
    first, end = TESTED_PYTHONS
    python = sys.version.split()[0]
    if not _parse_version(first) <= sys.version_info[:2] < _parse_version(end):
        raise SystemExit(
            f"Error: Python {python} runs this ({sys.executable}), which is not in the tested range >={first},<{end}: "
            "make an environment with: make PYTHON=/path/to/a/python of that range"
        )
    if faults := find_untested_versions():
        raise SystemExit(f"Error: {'; '.join(faults)}: install the tested versions with: pip install -r {LOCK_FILE}")

"""The unit tests that need no torch, on every suitable Python of this machine but the environment's own.

Torch of another Python is gigabytes; the rest of requirements.lock is a minute. Each environment, .venv-VERSION, is kept.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from needs import TORCH_PACKAGES

ROOT = Path(__file__).parents[1]
CANDIDATES = ("python3.11", "python3.12", "python3.13", "/usr/bin/python3")
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
UNUSED = (*TORCH_PACKAGES, "mypy", "ruff", "pandas-stubs", "types-PyYAML", "types-tqdm", "snakefmt", "black", "shfmt-py")
LEAST_SHARE = 0.9
"""Of the tests: as many must run without torch, at least, and all of ALWAYS."""
ALWAYS = tuple(
    f"tests/unit/{name}.py"
    for name in ("scoring/test_reply_parser", "provenance/test_audit", "provenance/test_code_digest", "config/test_config")
)
"""Slow ones that run with --quick too: what they test depends on the Python most."""


def find_pythons() -> dict[str, str]:
    """Interpreters that start and fit, by version; the one that runs this is left out."""
    with (ROOT / "pyproject.toml").open() as project:
        [(first, end)] = re.findall(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', project.read(), re.M)
    question = "import platform, sys; print(platform.python_version(), *sys.version_info[:2])"
    pythons: dict[str, str] = {}
    for candidate in (*CANDIDATES, *map(str, sorted(PYENV.glob("versions/*/bin/python")))):
        try:
            completed = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # not there, or a shim without a Python
            continue
        version, major, minor = completed.stdout.split()
        if major == "3" and int(first) <= int(minor) < int(end) and version != sys.version.split()[0]:
            pythons.setdefault(version, candidate)
    return pythons


def make_environment(version: str, python: str) -> Path:
    """The Python of an environment with all of the lock but what needs torch, or checks code."""
    folder = ROOT / f".venv-{version}"
    pins = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.partition("==")[0] not in UNUSED]
    lock, installed = folder / "lean.lock", folder / "installed"
    if not (installed.exists() and installed.read_text() == "\n".join(pins)):
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", python, folder], check=True)
        lock.write_text("\n".join(pins))
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-deps", "--python", folder / "bin/python", "-r", lock], check=True
        )
        lock.rename(installed)
    return folder / "bin/python"


def run_tests(python: Path, options: list[str]) -> str:
    """Run them with some options of pytest; what is wrong, or nothing."""
    results = python.parents[1] / "results.xml"
    workers = ["-n", str(min(os.cpu_count() or 1, 4)), "--dist", "loadfile"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "workflow")}
    environment.pop("MEDMIM_NO_SKIPS", None)  # those that need torch are skipped
    keep = ["-o", "tmp_path_retention_count=9"]  # to delete what the whole suite left takes longer than these tests
    words = ["-q", "-r", "fE", *workers, "-p", "no:cacheprovider", *keep, f"--junitxml={results}", *options]
    words += ["tests/unit", *ALWAYS]
    completed = subprocess.run([python, "-m", "pytest", *words], cwd=ROOT, env=environment, check=False)
    if completed.returncode:
        return "tests failed"
    cases = list(ElementTree.parse(results).iter("testcase"))
    ran = [case.get("classname", "") for case in cases if case.find("skipped") is None]
    if missing := [name for name in ALWAYS if not any(Path(name).stem in classname for classname in ran)]:
        return f"no test of {', '.join(missing)} ran"
    return "" if len(ran) >= LEAST_SHARE * len(cases) else f"only {len(ran)} of {len(cases)} tests ran"


def main() -> None:
    """Run them on each Python in turn; exits with 1 where one has failed."""
    pythons = find_pythons()
    faults = []
    for version, python in sorted(pythons.items()):
        start = time.monotonic()
        fault = run_tests(make_environment(version, python), sys.argv[1:])
        print(f"Python {version} ({python}): {fault or 'passed'} ({time.monotonic() - start:.0f} s)", flush=True)
        faults += [f"{version}: {fault}"] if fault else []
    print(f"{len(pythons)} other Pythons: {', '.join(sorted(pythons)) or 'none that fits is on this machine'}")
    sys.exit("; ".join(faults) or None)


if __name__ == "__main__":
    main()

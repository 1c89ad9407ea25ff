"""Runs of users who lack things: rights to the results, a name, a home, git, a reader of what is printed."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from medmim.provenance import job_record
from runs import MINI, ROOT, commit_checkout
from users import call_nameless

pytestmark = pytest.mark.needs("user_namespaces")

RUN = Path("results/mini")
CSV = RUN / "tables/leaderboard.csv"


def deny_writing(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o555)


@pytest.fixture
def own(mini: Path, tmp_path: Path) -> Path:
    """A copy of the finished run in a folder of its own."""
    shutil.copytree(mini / RUN, tmp_path / "run" / RUN, symlinks=True)
    return tmp_path / "run"


def run_snakemake(folder: Path, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Snakemake as a user without a name, and without rights but those of files."""
    home = folder.with_name("home")
    home.mkdir(exist_ok=True)
    snakefile = commit_checkout() / "Snakefile"
    words = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--directory", folder, "--configfile", MINI]
    return call_nameless([*words, "--cores", "2", *arguments], folder.parent, HOME=str(home), OMP_NUM_THREADS="1", **environment)


def test_results_that_one_may_only_read(own: Path) -> None:
    deny_writing(own / "results")
    planned = run_snakemake(own, "-n")
    assert planned.returncode == 0 and "Nothing to be done" in planned.stdout + planned.stderr, planned.stderr
    for path in (own / CSV.parent, own / CSV):
        path.chmod(0o755)
    (own / CSV).write_text("changed")
    (own / CSV.parent).chmod(0o555)
    refused = run_snakemake(own, CSV, MEDMIM_CACHE="")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    (error,) = [line for line in refused.stderr.splitlines() if "may not be written" in line]
    assert error.startswith(f"{own / RUN}/") and "set results of your own in the config" in error
    assert (own / CSV).read_text() == "changed"


def test_a_working_directory_that_one_may_only_read(own: Path) -> None:
    deny_writing(own)
    refused = run_snakemake(own, "-n")
    lines = [line for line in refused.stderr.splitlines() if not line.startswith(("Using workflow", "Assuming"))]
    assert refused.returncode == 1 and len(lines) == 1
    assert lines[0].startswith(f"Error: {own}: may not be written by this user") and "--directory" in lines[0]


def test_make_gives_a_home_that_can_be_written(tmp_path: Path) -> None:
    """Without one Snakemake ends in a traceback before it reads the Snakefile."""
    words = ["make", "--no-print-directory", "-f", ROOT / "Makefile", "--eval", "home:\n\t@echo $$HOME", "home"]
    tmp_path.chmod(0o555)
    for home in ("", "/nowhere", str(tmp_path)):
        shown = call_nameless(words, tmp_path, HOME=home)
        assert shown.stdout == f"{tmp_path}/.snakemake/home\n", shown.stderr
    tmp_path.chmod(0o755)
    assert call_nameless(words, tmp_path, HOME=str(tmp_path)).stdout == f"{tmp_path}\n"


def test_a_job_without_git_name_or_utf_8(own: Path, tmp_path: Path) -> None:
    """Everything that is on PATH but git; the cache may only be read."""
    (tmp_path / "bin").mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in (path for path in Path(folder).glob("*") if path.name != "git"):
            if not (tmp_path / "bin" / program.name).is_symlink():
                (tmp_path / "bin" / program.name).symlink_to(program)
    (own / CSV).unlink()
    cache = tmp_path / "cache"
    cache.mkdir(0o555)
    surroundings = {"PATH": str(tmp_path / "bin"), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    made = run_snakemake(own, CSV, MEDMIM_CACHE=str(cache), TMPDIR=str(tmp_path / "absent"), **surroundings)
    assert made.returncode == 0, made.stderr[-3000:]
    assert job_record.read_record(job_record.sidecar_path(own / CSV))["git"] == {"commit": "", "clean": False}
    assert "cache: not kept" in made.stderr and "Traceback" not in made.stderr


def test_a_reader_of_the_plan_that_leaves(own: Path) -> None:
    words = [sys.executable, "-m", "snakemake", "--snakefile", commit_checkout() / "Snakefile", "--configfile", MINI, "-n"]
    left = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" --forceall 2>&1 | head -1', "bash", *words],
        cwd=own, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert left.returncode == 0 and left.stdout.count("\n") == 1 and left.stderr == ""

"""What is on the screen: of a run, when a job fails, and when a plan says that something is missing."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from runs import MINI, ROOT, call_snakemake, commit_checkout
from terminal import COLOUR, TerminalSession, run_in_terminal

INDEX = "results/mini/sources/odir.parquet"
ERROR = "index_source.py: error: nowhere: no such folder. Set the source's path in the config to the folder you keep it in"
LOCAL = ROOT / "profiles/local"


def write_config(folder: Path, **odir: object) -> Path:
    values = yaml.safe_load(MINI.read_text())
    values["sources"]["odir"] = odir
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml"


def run_on_terminal(folder: Path, *arguments: str | Path, **environment: str) -> TerminalSession:
    command = [sys.executable, "-m", "snakemake", "-s", commit_checkout() / "Snakefile", "-d", folder, *arguments]
    return run_in_terminal(command, commit_checkout(), {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment})


@pytest.fixture
def scored(mini: Path, tmp_path: Path) -> Path:
    """Working directory of a run that lacks but its last stages."""
    shutil.copytree(mini, tmp_path, symlinks=True, dirs_exist_ok=True, copy_function=os.link)
    for path in ("leaderboard.parquet", "comparisons.parquet", "report.html"):
        (tmp_path / "results/mini" / path).unlink()
    return tmp_path


STAGES = [
    r"leaderboard: .*leaderboard\.parquet is gone",
    r"report: .*report\.html is gone",
    r"3 stages to run",
    r"leaderboard {8}6 models and baselines, .* \(\d+\.\d s\)",
    r"print_leaderboard  \d+ cells, \d+ tables \(\d+\.\d s\)",
    r"report {13}\d+ kB, \d+ images \(\d+\.\d s\)",
]
"""Lines of such a run, but for what it cost, which comes next."""


def check_stages(lines: list[str]) -> None:
    lines = [*lines[:4], *sorted(lines[4:])]  # two run at once
    assert len(lines) == len(STAGES) and all(map(re.fullmatch, STAGES, lines)), lines


def check_result(lines: list[str]) -> None:
    assert re.fullmatch(r"rule +jobs +run +queue +CPU h +used +GPU h +peak memory +retries", lines[0]), lines
    assert any(re.match(r"all +\d+ +", line) for line in lines)
    assert "Each job: results/mini/costs.html" in lines
    assert [line.split(" points over its base")[0].split(": ")[0] for line in lines[-4:-2]] == ["med-mantis", "mim-llava-med"]
    assert lines[-2:] == ["Leaderboard: results/mini/leaderboard.parquet", "Report: results/mini/report.html"]


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}], ids=["colours", "no colours"])
def test_on_a_terminal_the_lines_of_stages_stay(scored: Path, environment: dict[str, str]) -> None:
    shown = run_on_terminal(scored, "--configfile", MINI, "--profile", LOCAL, MEDMIM_CACHE="", **environment)
    assert shown.status == 0, shown.lines
    joined = re.sub(r"\n {19}", " ", "\n".join(shown.lines)).splitlines()  # lines that were too long for 80 columns
    check_stages(joined[: len(STAGES)])
    check_result(joined[len(STAGES) :])
    assert max(map(len, shown.lines)) <= 80
    assert b"0 of 3 stages" in COLOUR.sub(b"", shown.output), "drawn while it ran"
    assert bool(COLOUR.search(shown.output)) is not bool(environment)


def test_without_a_terminal_a_stage_is_one_plain_line(scored: Path) -> None:
    done = call_snakemake(scored, "--configfile", MINI, MEDMIM_CACHE="")
    assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    check_stages(lines)
    check_result(done.stdout.splitlines())
    again = call_snakemake(scored, "--configfile", MINI, MEDMIM_CACHE="")
    assert again.stderr.splitlines() == ["Nothing to be done (all requested files are present and up to date)."]
    assert again.stdout.splitlines()[-1].startswith("Report: results/mini/report.html")
    dry_run = call_snakemake(scored, "-n", "--configfile", MINI, MEDMIM_CACHE="")
    assert "provenance" not in dry_run.stdout + dry_run.stderr and dry_run.stderr == ""


def test_an_error_is_the_last_on_a_terminal(tmp_path: Path) -> None:
    config = write_config(tmp_path, origin="local", path="nowhere")
    failed = run_on_terminal(tmp_path, INDEX, "--configfile", config)
    text = re.sub(r"\n {19}", " ", "\n".join(failed.lines))
    assert failed.status == 1 and text.endswith(ERROR) and text.count("no such folder") == 1
    assert re.search(r"^index_source odir  failed after .* \(\S*results/mini/logs/index_source\.odir\.log\)$", text, re.M), text
    assert max(map(len, failed.lines)) <= 80


@pytest.mark.parametrize("arguments", [[], ["--profile", LOCAL], ["--printshellcmds"]], ids=["default", "local", "commands"])
def test_the_programs_own_error_comes_last(tmp_path: Path, arguments: list[str | Path]) -> None:
    config = write_config(tmp_path, origin="local", path="nowhere")
    failed = call_snakemake(tmp_path, INDEX, "--configfile", config, *arguments, ok=False)
    lines = failed.stderr.rstrip().splitlines()
    assert lines[-2].endswith("results/mini/logs/index_source.odir.log:") and lines[-1] == ERROR
    commands = [line for line in lines if "workflow/scripts/index_source.py" in line]
    assert bool(commands) is ("--printshellcmds" in arguments)
    assert "Traceback" not in failed.stderr
    snakemakes = next((tmp_path / ".snakemake/log").glob("*.log")).read_text()
    assert "Error in rule index_source" in snakemakes, "which keeps all of it"


def test_a_plan_with_something_missing_says_just_that(tmp_path: Path) -> None:
    config = write_config(tmp_path, origin="download")
    nobody = {name: "" for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")} | {"HOME": str(tmp_path)}
    asked = call_snakemake(tmp_path, "plan", "--configfile", config, ok=False, **nobody)
    assert asked.returncode == 1
    assert asked.stderr.splitlines() == ["plan.py: error: 1 thing is missing for this run: see above"]
    assert asked.stdout.lstrip().startswith("licence") and "Missing: odir: no credentials found" in asked.stdout
    assert "peak memory" not in asked.stdout, "no costs"


def test_a_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    for arguments in (("--configfile", MINI, "merge"), ("merge", "--configfile", "merge")):
        failed = call_snakemake(tmp_path, *arguments, ok=False)
        hint = "A target stands before the options: snakemake TARGET --configfile FILE"
        assert failed.stderr == f"Error: --configfile: merge: No such file or directory. {hint}\n"


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"a: 1\n# caf\xe9\n", ":2: not UTF-8, by invalid continuation byte: save it as UTF-8"),
        (b"run: [a\nb: c\n", ":2: not valid YAML: expected ',' or ']', but got ':'"),
    ],
)
def test_a_config_that_can_not_be_read_is_named_with_its_line(tmp_path: Path, content: bytes, fault: str) -> None:
    config = tmp_path / "my.yaml"
    config.write_bytes(content)
    failed = call_snakemake(tmp_path, "-n", "--configfile", config, ok=False)
    assert failed.stdout + failed.stderr == f"Error: --configfile: {config}{fault}\n"


def test_a_plan_that_can_not_begin_says_why(tmp_path: Path) -> None:
    config = write_config(tmp_path, origin="nowhere")
    asked = call_snakemake(tmp_path, "plan", "--configfile", config, ok=False)
    assert "sources.odir.origin" in asked.stdout + asked.stderr
    dry_run = call_snakemake(tmp_path, "plan", "-n", "--configfile", MINI)
    assert "rule plan:" in dry_run.stdout

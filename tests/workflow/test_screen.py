"""What is on the screen when a job fails, and when a plan says that something is missing."""

from pathlib import Path

import pytest
import yaml

from runs import MINI, ROOT, call_snakemake

INDEX = "results/mini/sources/odir.parquet"
ERROR = "index_files.py: error: nowhere: no such folder. Set the source's path in the config to the folder you keep it in"
LOCAL = ROOT / "profiles/local"


def write_config(folder: Path, **odir: object) -> Path:
    values = yaml.safe_load(MINI.read_text())
    values["sources"]["odir"] = odir
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--profile", LOCAL], ["--profile", LOCAL, "--logger", "rich"]],
    ids=["default", "local", "rich"],
)
def test_the_programs_own_error_comes_last(tmp_path: Path, arguments: list[str | Path]) -> None:
    config = write_config(tmp_path, origin="local", path="nowhere")
    failed = call_snakemake(tmp_path, INDEX, "--configfile", config, *arguments, ok=False)
    lines = failed.stderr.rstrip().splitlines()
    assert lines[-2].endswith("results/mini/logs/index_source.odir.log:") and lines[-1] == ERROR
    assert "--code" not in failed.stderr, "no command is shown in full"
    commands = [n for n, line in enumerate(lines) if "workflow/scripts/index_files.py" in line]
    assert commands and all(len(lines[n]) < 250 for n in commands)
    assert "Traceback" not in failed.stderr


def test_a_plan_with_something_missing_says_just_that(tmp_path: Path) -> None:
    config = write_config(tmp_path, origin="download")
    nobody = {name: "" for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")} | {"HOME": str(tmp_path)}
    asked = call_snakemake(tmp_path, "plan", "--configfile", config, ok=False, **nobody)
    assert asked.returncode == 1
    errors = [line for line in asked.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert errors == ["plan.py: error: 1 thing is missing for this run: see above"]
    assert asked.stdout.lstrip().startswith("licence") and "Missing: odir: no credentials found" in asked.stdout
    assert "peak memory" not in asked.stdout, "no costs"


def test_a_plan_that_can_not_begin_says_why(tmp_path: Path) -> None:
    config = write_config(tmp_path, origin="nowhere")
    asked = call_snakemake(tmp_path, "plan", "--configfile", config, ok=False)
    assert "sources.odir.origin" in asked.stdout + asked.stderr
    dry_run = call_snakemake(tmp_path, "plan", "-n", "--configfile", MINI)
    assert "rule plan:" in dry_run.stdout

"""Paths that hold what a shell, Snakemake or a table might read something into: a whole run, and that nothing is executed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import release_made
import yaml

import heldout_made
from medmim.sources.contract import Phantom, load_part
from runs import MINI, ROOT, call_snakemake, copy_checkout

EXECUTED = "was-executed"
ODD = f'it\'s "odd" #1 é $(touch {EXECUTED}) `touch {EXECUTED}`; touch {EXECUTED} & $HOME ~ * [a] %j'
"""Name of a folder. Braces, which Snakemake takes for wildcards, may stand wherever no output's pattern begins with them."""
BRACES = f"{ODD} {{source}}"


def make_worktree(folder: Path) -> Path:
    """A checkout of which `.git` is a file, as `git worktree add` makes it."""
    copy_checkout(folder / "first")
    git = ["git", "-C", str(folder / "first"), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in ("init", "add --all", "commit --message test"):
        subprocess.run([*git, *words.split()], check=True, capture_output=True)
    subprocess.run([*git, "worktree", "add", str(folder / ODD / "checkout")], check=True, capture_output=True)
    assert (folder / ODD / "checkout/.git").is_file()
    return folder / ODD / "checkout"


def write_odd_config(folder: Path) -> Path:
    """A small run whose every path is odd: source, held-out set, release, the paper's figures, results and cache."""
    data = folder / BRACES / "data"
    load_part("odir", "phantom", Phantom).write_cohort(data / "odir", patients=8, seed=7)
    exams = [heldout_made.make_exam_question(number) for number in range(3)]
    heldout_made.write_medxpertqa(data / "exams", exams, unpacked=True)
    for part in ("train_inherent", "benchmark_Held_in"):
        release_made.write_records(folder / ODD / f"release/Med_MIM_{part}_Temporal.json", [release_made.make_record()])
    papers = folder / ODD / "papers"
    papers.mkdir()
    (papers / "paper * .csv").write_text("model,set,accuracy\nmed-mantis,odir,50\n")
    (papers / "paper 2 .csv").write_text("what a pattern would match too")
    values = yaml.safe_load(MINI.read_text())
    values["results"] = str(folder / ODD / "results")
    values["cache"] = {"folder": f"~/{BRACES}/cache"}
    values["sources"] = {
        **{name: values["sources"][name] for name in ("ms_cxr_t", "pmc", "vqa_rad")},
        "odir": {"origin": "local", "path": "../data/odir/"},
    }
    values["qa"] |= {"train": {"comparison": 16}, "benchmark": {"comparison": 8, "odir": 8}}
    values["qa"]["release"] = {"path": str(folder / ODD / "release")}
    values["heldout"] = {"medxpertqa": {"path": str(data / "exams")}}
    values["report"] = {"paper": str(papers / "paper * .csv"), "title": ODD}
    values["models"] = {name: values["models"][name] for name in ("mantis", "med-mantis")}
    values["models"]["mantis"]["system"] = ODD
    values["prediction"]["conditions"] = ["plain"]
    config = folder / BRACES / "config.yaml"
    config.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return config


def list_executed(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(EXECUTED)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run, started from elsewhere, all of whose paths are odd; what it said is in said.txt."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / BRACES / "work").mkdir(parents=True)
    make_worktree(folder)
    config = write_odd_config(folder)
    for targets in (["all", "export"], ["audit"], ["crate"]):
        call_odd(folder, *targets, "--configfile", config)
    return folder


def call_odd(folder: Path, *arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Snakemake in the odd checkout and working directory."""
    snakefile = folder / ODD / "checkout/Snakefile"
    return call_snakemake(folder / BRACES / "work", *arguments, "--cores", "2", ok=ok, snakefile=snakefile, HOME=str(folder))


def test_a_run_with_odd_paths_is_whole_and_audited(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = odd / BRACES / "config.yaml"
    assert "Nothing to be done" in call_odd(odd, "-n", "--configfile", config).stdout
    monkeypatch.chdir(odd / BRACES / "work")
    results = odd / ODD / "results/mini"
    assert json.loads((results / "audit.json").read_text())["faults"] == []
    assert "paper%20" in (results / "ro-crate-metadata.json").read_text()
    assert (odd / BRACES / "cache/jobs").is_dir() and not (odd / "~").exists()
    assert "50" in (results / "tables/leaderboard.md").read_text()
    trace = [sys.executable, odd / ODD / "checkout/workflow/scripts/trace.py", "--results", results]
    told = subprocess.run([*trace, "--cell", "med-mantis", "odir", "accuracy"], capture_output=True, text=True, check=True).stdout
    assert "index_source.py" in told and "sources/odir.parquet" in told


def test_nothing_of_a_config_is_executed(odd: Path) -> None:
    values = yaml.safe_load((odd / BRACES / "config.yaml").read_text())
    values["run"] = "wrong"
    values["sources"]["odir"]["path"] = f"$(touch {EXECUTED})"
    wrong = odd / BRACES / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(values))
    failed = call_odd(odd, "--configfile", wrong, ok=False)
    assert f"$(touch {EXECUTED}): no such folder" in failed.stderr and "Traceback" not in failed.stderr
    assert list_executed(odd) == list_executed(Path.cwd()) == []


def test_a_run_is_taken_from_the_cache_into_other_odd_folders(odd: Path) -> None:
    """Also where results are a link to elsewhere."""
    values = yaml.safe_load((odd / BRACES / "config.yaml").read_text())
    values["results"] = "results\\n & more"
    other = odd / BRACES / "other.yaml"
    other.write_text(yaml.safe_dump(values, sort_keys=False))
    elsewhere = odd / "elsewhere"
    elsewhere.mkdir()
    (odd / BRACES / "work" / values["results"]).symlink_to(elsewhere)
    lines = call_odd(odd, "--configfile", other).stderr.splitlines()
    programs = {line.split()[0] for line in lines if line.endswith(" s)")}
    assert programs <= {"index_source", "index_files", "score"}, (
        "only what reads the user's own folders, which are no inputs, is made again"
    )
    assert (elsewhere / "mini/report.html").is_file()


def test_the_slurm_profile_needs_no_link() -> None:
    """As some archives and file systems lose links; --profile slurm looks for a folder of that name beside the Snakefile."""
    assert (ROOT / "slurm/config.yaml").is_file() and not (ROOT / "slurm").is_symlink()


@pytest.mark.parametrize("key", ["results", "cache.folder"])
@pytest.mark.parametrize("what, message", [("link", "is a link to nowhere, which is not there"), ("file", "is a file: give a")])
def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path, key: str, what: str, message: str) -> None:
    if what == "link":
        (tmp_path / "place").symlink_to("nowhere")
    else:
        (tmp_path / "place").touch()
    setting = ("--config", "results=place") if key == "results" else ()
    cache = {} if key == "results" else {"MEDMIM_CACHE": "place"}
    failed = call_snakemake(tmp_path, "-n", "--configfile", MINI, *setting, ok=False, **cache)
    assert f"{key}: place {message}" in failed.stdout and "Traceback" not in failed.stdout


@pytest.mark.parametrize("key", ["results", "report.paper", "qa.release.path"])
def test_a_path_that_snakemake_would_take_apart_is_refused_in_one_line(tmp_path: Path, key: str) -> None:
    values = yaml.safe_load(MINI.read_text())
    section = key.partition(".")[0]
    values[section] = {"results": "{run}", "report": {"paper": "{run}.csv"}, "qa": {"release": {"path": "{run}"}}}[section]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    failed = call_snakemake(tmp_path, "-n", "--configfile", tmp_path / "config.yaml", ok=False)
    assert f"{key}: '{{run}}" in failed.stdout and "holds a brace, which Snakemake takes for a wildcard" in failed.stdout
    assert "Traceback" not in failed.stdout


def test_a_checkout_that_snakemake_would_take_apart_is_refused_in_one_line(tmp_path: Path) -> None:
    copy_checkout(tmp_path / "{checkout}")
    failed = call_snakemake(tmp_path, "-n", "--configfile", MINI, ok=False, snakefile=tmp_path / "{checkout}/Snakefile")
    assert "move the checkout to a folder without" in failed.stdout and "Traceback" not in failed.stdout

"""Rules that are not this workflow's, added to it or importing it, follow Snakemake's own triggers; its own follow content."""

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from runs import MINI, call_snakemake, commit_checkout, list_snakemake_logs

RAW = "results/mini/raw/odir/files.parquet"
ADDED = f'''

rule added_shell:
    input: "{RAW}"
    output: "added/shell.txt"
    params: word="first"
    shell: "echo {{params.word}} $(wc -c < {{input}}) ${{{{PYTHONPATH:-}}}} > {{output}}"

rule added_run:
    input: "{RAW}"
    output: "added/run.txt"
    run:
        with open(output[0], "w") as file:
            file.write("first")

rule added_script:
    input: "{RAW}"
    output: "added/script.txt"
    script: "added.py"
'''
TARGETS = ["added/shell.txt", "added/run.txt", "added/script.txt"]
ALL_ADDED = {"added_shell": 1, "added_run": 1, "added_script": 1}


class Workspace:
    """A working directory, and a Snakefile that has rules of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.snakefile = folder / "work", folder / "checkout/Snakefile"
        shutil.copytree(commit_checkout(), self.snakefile.parent, symlinks=True)
        self.folder.mkdir()
        self.script = self.snakefile.with_name("added.py")
        self.script.write_text("open(snakemake.output[0], 'w').write('first')\n")
        with self.snakefile.open("a") as file:
            file.write(ADDED)
        self.configure()

    def configure(self, **odir: Any) -> None:
        values = yaml.safe_load(MINI.read_text())
        values["sources"] = {"odir": {"origin": "phantom", "patients": 8} | odir}
        values["qa"] = {"benchmark": {"odir": 8}}
        values["models"] = {"any": {"family": "chat", "hub": "a/b", "revision": "0" * 40}}
        (self.folder / "config.yaml").write_text(json.dumps(values))

    def run(self, *arguments: str | Path, **environment: str) -> Counter[str]:
        """Jobs by rule that ran, or would."""
        arguments = (*TARGETS, *arguments, "--configfile", self.folder / "config.yaml", "--cores", "2")
        done = call_snakemake(self.folder, *arguments, snakefile=self.snakefile, **environment)
        self.said = done.stdout + done.stderr
        return count_jobs(done.stdout if "-n" in arguments else list_snakemake_logs(self.folder)[-1].read_text())

    def edit(self, file: Path, old: str, new: str) -> None:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))


def count_jobs(said: str) -> Counter[str]:
    """Jobs by rule of the table that Snakemake prints."""
    table = said[said.rindex("Job stats:") :] if "Job stats:" in said else ""
    return Counter({name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.M) if name != "total"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("other"))
    assert workspace.run() == {"make_phantoms": 1, **ALL_ADDED}
    return workspace


def test_nothing_runs_twice(place: Workspace) -> None:
    assert place.run() == {}
    (place.folder / RAW).touch()
    assert place.run() == {}, "the input has the checksum that Snakemake remembers, and times say nothing of our own jobs"


def test_other_rules_keep_their_environment(place: Workspace) -> None:
    assert str(place.snakefile.parent) not in (place.folder / "added/shell.txt").read_text()


def test_a_changed_param_runs_the_rule_that_has_it(place: Workspace) -> None:
    place.edit(place.snakefile, 'word="first"', 'word="second"')
    assert place.run("-n", "--rerun-triggers", "mtime") == {}, "the user's own choice of triggers holds"
    assert place.run() == {"added_shell": 1}
    assert (place.folder / "added/shell.txt").read_text().startswith("second")


def test_changed_code_runs_the_rule_that_has_it(place: Workspace) -> None:
    place.edit(place.snakefile, 'file.write("first")', 'file.write("second")')
    assert place.run() == {"added_run": 1}
    place.edit(place.script, "first", "second")
    assert place.run() == {"added_script": 1}
    assert [(place.folder / path).read_text() for path in TARGETS[1:]] == ["second", "second"]


def test_a_changed_input_runs_the_rules_that_read_it(place: Workspace) -> None:
    first = (place.folder / RAW).read_bytes()
    place.configure(patients=9)
    assert place.run() == {"make_phantoms": 1, **ALL_ADDED}
    assert (place.folder / RAW).read_bytes() != first
    place.configure()
    assert place.run("-n") == ALL_ADDED
    assert place.run() == ALL_ADDED, "what comes from the cache is new to them"
    assert "make_phantoms odir: config: patients 9 → 8: taken from the cache" in place.said
    assert (place.folder / RAW).read_bytes() == first
    assert place.run() == {}


def test_an_input_in_another_place_runs_the_rule_that_reads_it(place: Workspace) -> None:
    shutil.copy(place.folder / RAW, place.folder / "copy.parquet")
    os.utime(place.folder / "copy.parquet", (0, 0))
    rule = place.snakefile.read_text()
    place.snakefile.write_text(
        rule.replace(f'input: "{RAW}"\n    output: "added/run.txt"', 'input: "copy.parquet"\n    output: "added/run.txt"')
    )
    assert place.run() == {"added_run": 1}
    place.snakefile.write_text(rule)
    assert place.run() == {"added_run": 1}


def test_a_module_decides_as_the_workflow_itself(place: Workspace) -> None:
    outer = place.folder / "outer.smk"
    outer.write_text(f'''
import json

with open("config.yaml") as file:
    values = json.load(file)

module medmim:
    snakefile: "{place.snakefile}"
    config: values

use rule * from medmim as medmim_*

rule mine:
    input: "{RAW}"
    output: "mine.txt"
    default_target: True
    shell: "cp {{input}} {{output}}"
''')

    def run(*arguments: str) -> Counter[str]:
        done = call_snakemake(place.folder, *arguments, "--cores", "2", snakefile=outer)
        return count_jobs(done.stdout if "-n" in arguments else list_snakemake_logs(place.folder)[-1].read_text())

    place.run()
    assert run() == {"mine": 1}, "what the workflow itself has made is as fresh to a module"
    whole = call_snakemake(place.folder, "-n", "--configfile", place.folder / "config.yaml", snakefile=place.snakefile)
    assert run("-n", "medmim_all") == {f"medmim_{rule}": n for rule, n in count_jobs(whole.stdout).items()}


def test_config_files_are_written_by_runs_alone(place: Workspace) -> None:
    folder = place.folder / "results/mini/.config"
    place.run()
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert [path.name.split(".")[0] for path in files] == ["make_phantoms"] * len(files)
    shutil.rmtree(folder)
    call_snakemake(place.folder, "--lint", "--configfile", place.folder / "config.yaml")
    for arguments in ("-n", "--unlock", "--summary", "--touch"):
        place.run(arguments)
    assert not folder.exists()
    assert place.run() == {}
    assert [path.read_bytes() for path in folder.iterdir()] == [json.dumps({"patients": 8, "seed": 7}, indent=1).encode() + b"\n"]

"""One change at a time: exactly the jobs that it concerns compute again, and undoing it computes nothing.

A job is named by its program and an output below the run's folder. What a job's record says decides whether it computed: it
was started after the change, and not restored from the cache.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from config_files import config_file
from medmim.provenance import job_record
from runs import MINI, copy_checkout

RUN = Path("results/mini")
BOARD = {"leaderboard *", "report *", "print_leaderboard *"}
SCORED = {"score *", *BOARD}
ASKED = {"predict *", *SCORED}
QUESTIONS_ANEW = {"find_copies *", "merge_qa *", "audit_release *"}
HELD_OUT_ANEW = {"build_images */odir.*", "generate_qa qa/odir.*", *QUESTIONS_ANEW, "build_shards *", *ASKED}
"""What follows when a source of which no question is in training becomes another."""


def tuned(model: str) -> set[str]:
    """What follows when one tuned model becomes another."""
    return {f"tune models/{model}.*", f"predict */{model}.*", f"score */{model}.*", *BOARD}


def restore(folder: Path, base: Path) -> None:
    """Make a folder as another is, with its files' times; bytecode stays, and what nothing has changed is not touched."""
    for path in folder.rglob("*"):
        new = path.is_file() and "__pycache__" not in path.parts and not (base / path.relative_to(folder)).exists()
        if new or path.is_symlink():
            path.unlink()
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(base, folder, symlinks=True, dirs_exist_ok=True, ignore=ignore, copy_function=copy_changed)


def copy_changed(source: str, target: str) -> None:
    if not (Path(target).exists() and stamp_file(Path(source)) == stamp_file(Path(target))):
        shutil.copy2(source, target, follow_symlinks=False)


def stamp_file(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class Workspace:
    """A checkout, a working directory with a user's data, a config and a finished run."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.work = folder / "checkout", folder / "work"
        self.base = folder / "base"
        copy_checkout(self.base)
        self.work.mkdir()
        self.values: dict[str, Any] = yaml.safe_load(MINI.read_text())
        self.data = self.work / "data/odir"
        self._phantom()
        self.values["sources"]["odir"] = {"origin": "local", "path": "data/odir"}
        del self.values["sources"]["lumiere"]
        self.values["prediction"]["conditions"] = ["plain"]
        models = self.values["models"]
        self.values["models"] = {name: models[name] for name in ("mantis", "med-mantis")}
        models["med-mantis"]["tuning"]["learning_rate"] = 0.05  # so much that whatever changes in a training shows in the scores
        self.arguments: list[str] = []
        self.back: set[str] = set()
        self.reset()
        self.run()

    def _phantom(self) -> None:
        program = self.base / "workflow/scripts/make_phantoms.py"
        index = self.data / "files.parquet"
        call = [sys.executable, program, "--cfg", config_file({"patients": 8, "seed": 7}), "--source", "odir", "--raw", index]
        subprocess.run(call, check=True, env=self.environment(self.base))
        for path in self.data.glob("files.parquet*"):
            path.unlink()
        shutil.copytree(self.data, self.work / "odir.base")

    @staticmethod
    def environment(checkout: Path) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout / "workflow")}

    def reset(self) -> None:
        """Everything but the results as it was, and of these none that are no longer wanted."""
        self.arguments = []
        for path in [*(self.work / RUN).rglob("new"), *(self.work / RUN).rglob("new.*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        restore(self.checkout, self.base)
        restore(self.data, self.work / "odir.base")
        self.configure(self.values)

    def undo(self) -> set[str]:
        """Take the change back that was made last; the patterns of the jobs that the next run computes for it."""
        self.reset()
        back, self.back = self.back, set()
        return back

    def configure(self, values: dict[str, Any]) -> None:
        (self.work / "config.yaml").write_text(json.dumps(values))  # which is YAML, and has no anchors

    def run(self) -> str:
        """Run the workflow; what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--snakefile", self.checkout / "Snakefile", "--directory", self.work,
             "--configfile", self.work / "config.yaml", "--cores", "2", *self.arguments],
            cwd=self.checkout, capture_output=True, text=True, env=self.environment(self.checkout), check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-1500:]
        return done.stderr

    def records(self, run: Path = RUN) -> dict[str, job_record.Record]:
        found = {}
        for sidecar in job_record.find_sidecars(self.work / run):
            record = job_record.read_record(sidecar)
            first = Path(job_record.output_files(record)[0]["path"]).relative_to(run).as_posix()
            found[f"{record['program'].removesuffix('.py')} {first}"] = record
        return found

    def computed(self, change: Callable[[], None], run: Path = RUN) -> set[str]:
        """Jobs that computed in a run after a change."""
        change()
        since = datetime.now(UTC)
        self.said = self.run()
        return {
            name
            for name, record in self.records(run).items()
            if "restored" not in record and datetime.fromisoformat(record["start"]) >= since
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("mutations"))


Apply = Callable[[Workspace], None]


def edit(file: str, old: str, new: str) -> Apply:
    """Replace a text that the checkout has, everywhere in one file."""

    def apply(place: Workspace) -> None:
        path = place.checkout / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))

    return apply


def append(file: str, text: str) -> Apply:
    def apply(place: Workspace) -> None:
        with (place.checkout / file).open("a") as f:
            f.write(text)

    return apply


def config(*changes: tuple[str, Any]) -> Apply:
    """Set values of the config by dotted path."""

    def apply(place: Workspace) -> None:
        values = yaml.safe_load((place.work / "config.yaml").read_text())
        for dotted, value in changes:
            *parents, last = dotted.split("/")
            part = values
            for key in parents:
                part = part.setdefault(key, {})
            part[last] = value
        place.configure(values)

    return apply


def arguments(*words: str) -> Apply:
    return lambda place: place.arguments.extend(words)


def both(*applied: Apply) -> Apply:
    def apply(place: Workspace) -> None:
        for one in applied:
            one(place)

    return apply


def touch(where: Callable[[Workspace], Path], pattern: str = "*") -> Apply:
    def apply(place: Workspace) -> None:
        touched = [p for p in where(place).rglob(pattern) if p.is_file()]
        assert touched
        for path in touched:
            os.utime(path)

    return apply


def forget(place: Workspace) -> None:
    shutil.rmtree(place.work / ".snakemake")


def delete(*paths: str) -> Apply:
    def apply(place: Workspace) -> None:
        for path in paths:
            target = place.work / RUN / path
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    return apply


def edited(path: str, in_place: bool) -> Apply:
    """A byte of a result changed by hand: in the file itself, which the cache shares, or in a new file put in its place."""

    def apply(place: Workspace) -> None:
        target = place.work / RUN / path
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        if not in_place:
            target.unlink()
        target.write_bytes(data)

    return apply


def one_more_person(place: Workspace) -> None:
    """A ninth person in the user's ODIR folder, in its table and its images."""
    table = place.data / "full_df.csv"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    last = rows[rows["ID"] == rows["ID"].iloc[-1]].copy()
    number = str(max(map(int, rows["ID"])) + 1)
    old = last["ID"].iloc[0]
    rows = pd.concat([rows, last.replace({old: number}).replace(rf"^{old}_", f"{number}_", regex=True)])
    rows.to_csv(table, index=False)
    for eye in ("left", "right"):
        with Image.open(place.data / f"Training Images/{old}_{eye}.jpg") as image:
            image.rotate(7).save(place.data / f"Training Images/{number}_{eye}.jpg")


def one_byte(place: Workspace) -> None:
    """A byte after the end of a JPEG: another file, the same picture."""
    path = min((place.data / "Training Images").glob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"\0")


@dataclass(frozen=True)
class Mutation:
    name: str
    apply: Apply
    again: set[str] = field(default_factory=set)
    """Patterns of the jobs that compute again."""
    but: set[str] = field(default_factory=set)
    back: set[str] = field(default_factory=set)
    """Patterns of those that compute when it is undone: a user's folder is read again whenever its files have other times."""
    says: str = ""
    """The reason that is printed."""


NEW = "\n_UNUSED = 1\n"
NOTHING: set[str] = set()
MUTATIONS = [
    # times
    Mutation(
        "touch every artifact, every file drawn, the checkout and the config",
        both(
            touch(lambda p: p.work / RUN, "*.parquet"),
            touch(lambda p: p.work / RUN / "raw"),
            touch(lambda p: p.checkout),
            touch(lambda p: p.work, "config.yaml"),
        ),
    ),
    Mutation(
        "touch every file of the user's",
        touch(lambda p: p.data),
        {"index_source *"},
        back={"index_source *"},
        says="a file in data/odir has changed",
    ),
    # text that is not code
    Mutation(
        "a comment, docstrings, the layout of code, the README and an environment that is not used",
        both(
            append("workflow/medmim/provenance/job.py", "\n# a comment\n"),
            edit("workflow/medmim/training/finetune.py", '"""Fine-tuning of', '"""The fine-tuning of'),
            edit("workflow/medmim/config/training.py", '"""Rank of the adapters."""', '"""Rank."""'),
            edit("workflow/medmim/tables/table_io.py", "\n\n\ndef", "\n\n\n\n\ndef"),
            append("README.md", "More.\n"),
            append("envs/data.yaml", "# more\n"),
        ),
    ),
    # code
    Mutation(
        "code of a leaf module",
        append("workflow/medmim/scoring/bootstrap.py", NEW),
        {"leaderboard *"},
        says="leaderboard: code: medmim.scoring.bootstrap",
    ),
    Mutation(
        "code of a module of all that read or write a table",
        append("workflow/medmim/tables/table_io.py", NEW),
        {"*"},
        but={"make_phantoms *"},
        back={"index_source *"},
    ),
    Mutation(
        "code of one source's adapter", append("workflow/medmim/sources/embed/adapter.py", NEW), {"build_images images/embed.*"}
    ),
    Mutation(
        "code that draws one source", append("workflow/medmim/sources/embed/phantom.py", NEW), {"make_phantoms raw/embed/*"}
    ),
    Mutation(
        "code of a model family",
        append("workflow/medmim/models/families/mantis.py", NEW),
        {"make_tokenizer *", "build_shards *", "make_base *", "tune *", "predict *", "report *"},
    ),
    Mutation("code of a family that no model is of", append("workflow/medmim/models/families/llava_med.py", NEW), {"report *"}),
    Mutation("code of a program", append("workflow/scripts/merge_qa.py", NEW), {"merge_qa *"}),
    Mutation(
        "a scoring metric",
        edit("workflow/medmim/scoring/open_ended.py", "recall, 2 * common", "recall, 0.01 + 2 * common"),
        SCORED,
    ),
    Mutation(
        "a wording of one task",
        edit("workflow/medmim/sources/vqa_rad/questions.py", 'the answer "{answer}"', 'the reply "{answer}"'),
        {"generate_qa qa/vqa_rad.*", *QUESTIONS_ANEW, *ASKED},
    ),
    Mutation(
        "the report's template",
        append("workflow/medmim/reporting/report/report.html.j2", "<!-- more -->\n"),
        {"report *", "print_leaderboard *"},
        says="report: code: medmim/reporting/report/report.html.j2",
    ),
    Mutation(
        "what a column of the leaderboard means",
        edit("workflow/medmim/schemas/leaderboard.py", '"items"', '"all items"'),
        BOARD,
    ),
    # the engine, and words
    Mutation(
        "a waiting time of the engine",
        edit("workflow/medmim/common/slurm_client.py", "CLIENT_TIMEOUT_SECONDS = 10\n", "CLIENT_TIMEOUT_SECONDS = 11\n"),
    ),
    Mutation(
        "a reworded error of the engine",
        edit("workflow/medmim/provenance/job.py", "{path} does not exist", "{path} is not there"),
    ),
    Mutation(
        "a new log line of the engine",
        edit(
            "workflow/medmim/provenance/job.py",
            "            self._preflight(self.cfg)\n",
            '            log.info("%s begins", self.program)\n            self._preflight(self.cfg)\n',
        ),
    ),
    Mutation(
        "reworded errors and log lines of stages, the training among them",
        both(
            edit("workflow/medmim/tables/table_io.py", "not a Parquet file: {error}", "no Parquet file ({error})"),
            edit("workflow/medmim/training/finetune.py", "no training sample: see", "nothing to train on: see"),
            edit("workflow/medmim/training/finetune.py", "which died or was cut off", "which is gone"),
            edit("workflow/medmim/training/finetune.py", "resumes from %s", "goes on from %s"),
            edit("workflow/scripts/merge_qa.py", "fewer than wanted: %s", "fewer questions than wanted: %s"),
        ),
    ),
    # config
    Mutation(
        "one value of a training",
        config(("models/med-mantis/tuning/learning_rate", 0.1)),
        tuned("med-mantis"),
        says="tune med-mantis: config: tuning.learning_rate 0.05 → 0.1",
    ),
    Mutation(  # Its undoing is the reason told of every job in the next row, so that one must not look for another.
        "the engine's version",
        edit("workflow/medmim/provenance/engine_version.py", "\nENGINE_VERSION = ", "\nENGINE_VERSION = 1000 + "),
        {"*"},
        back={"index_source *"},
        says="tune med-mantis: engine version ",
    ),
    Mutation(
        "memory of a training's GPUs", config(("models/med-mantis/tuning/gpu_memory_gb", 80)), {"report *", "print_leaderboard *"}
    ),
    Mutation(
        "two values swapped",
        config(("models/med-mantis/tuning/lora_rank", 8), ("models/med-mantis/tuning/lora_alpha", 4)),
        tuned("med-mantis"),
        says="tuning.lora_alpha 8 → 4, tuning.lora_rank 4 → 8",
    ),
    Mutation("a value that only shows", config(("report/title", "Other")), {"report *"}),
    Mutation("resamples", config(("scoring/resamples", 100)), BOARD),
    Mutation("the seed", config(("seed", 8)), {"*"}, but={"index_source *", "build_images */odir.*"}),
    Mutation(
        "one more patient of a drawn source",
        config(("sources/pmc/patients", 9)),
        {
            "make_phantoms raw/pmc/*",
            "build_images */pmc.*",
            "generate_qa qa/pmc.*",
            *QUESTIONS_ANEW,
            "make_tokenizer *",
            "build_shards *",
            "make_base *",
            "tune *",
            *ASKED,
        },
    ),
    Mutation("one condition more", config(("prediction/conditions", ["plain", "blind"])), ASKED),
    Mutation(
        "a new model",
        config(
            (
                "models/new",
                {
                    "family": "mantis",
                    "base": "mantis",
                    "tuning": {"max_steps": 1, "lora_rank": 2, "precision": "fp32", "max_length": 1024},
                },
            )
        ),
        tuned("new"),
    ),
    Mutation(
        "what is said in other words: a key renamed with its value, a default written out, options of a command in another order",
        both(
            edit("workflow/medmim/config/run_config.py", "    resamples: Annotated", "    draws: Annotated"),
            edit("workflow/rules/score.smk", "RUN.scoring.resamples", "RUN.scoring.draws"),
            edit("workflow/rules/report.smk", "RUN.scoring.resamples", "RUN.scoring.draws"),
            config(("scoring", {"draws": 200}), ("report/examples", 3)),
            edit(
                "workflow/rules/score.smk",
                "--train {input.train} --copies {input.copies}",
                "--copies {input.copies} --train {input.train}",
            ),
        ),
    ),
    # data
    Mutation(
        "one more person of the user's",
        one_more_person,
        {
            "index_source *",
            "build_images */odir.*",
            "generate_qa qa/odir.*",
            *QUESTIONS_ANEW,
            "build_shards *",
            *ASKED,
        },
        back={"index_source *"},
    ),
    Mutation(
        "one byte of one of the user's images",
        one_byte,
        {
            "index_source *",
            "build_images */odir.*",
            "generate_qa qa/odir.*",
            "find_copies *",
            "audit_release *",
            "build_shards *",
            "predict *",
            "report *",
        },
        back={"index_source *"},
    ),
    # policies: a training bears those of what it was trained on
    Mutation(
        "a held-out source becomes credentialed",
        config(("sources/odir/credentialed", True)),
        {"index_source *", *HELD_OUT_ANEW},
        back={"index_source *"},
    ),
    # packages
    Mutation(
        "the version of matplotlib",
        edit("requirements.lock", "\nmatplotlib==", "\nmatplotlib==0."),
        {"report *"},
        says="report: code: matplotlib",
    ),
    Mutation(
        "the version of torch",
        edit("requirements.lock", "\ntorch==", "\ntorch==0."),
        {"make_base *", "tune *", "predict *", "print_leaderboard *"},
    ),
    # how it is run
    Mutation(
        "threads, a profile, the cache's limit, the version of a package that nothing of ours imports",
        both(
            arguments("--set-threads", "build_images=2", "tune=2"),
            lambda p: p.arguments.extend(["--profile", str(p.checkout / "profiles/local")]),
            config(("cache", {"limit_gb": 50})),
            edit("requirements.lock", "\nruff==", "\nruff==0."),
        ),
    ),
    Mutation("cores", arguments("--cores", "1")),
    # what Snakemake and the results remember
    Mutation(".snakemake lost", forget),
    Mutation(".snakemake lost, and a value changed", both(forget, config(("scoring/resamples", 150))), BOARD),
    Mutation("a result deleted", delete("qa/benchmark.parquet"), says="merge_qa: results/mini/qa/benchmark.parquet is gone"),
    Mutation("a sidecar deleted", delete("qa/benchmark.parquet.prov.json")),
    Mutation("a folder of results deleted with its sidecars", delete("qa", "models")),
    Mutation("a weight file deleted", delete("models/mantis/model.safetensors")),
    Mutation("all results deleted", delete("."), {"index_source *"}),
    Mutation(
        "a result replaced by hand", edited("scores/mantis.parquet", in_place=False), says="scores/mantis.parquet was altered"
    ),
    Mutation(
        "a result edited by hand", edited("scores/mantis.parquet", in_place=True), {"score */mantis.parquet"}, says="was altered"
    ),
    Mutation("a sidecar edited by hand", edited("scores/mantis.parquet.prov.json", in_place=True), says="provenance of"),
    Mutation(
        "a held-out source that was the user's is drawn: the last of these, as its files stay",
        both(delete("sources"), config(("sources/odir", {"origin": "phantom", "patients": 8}))),
        {"make_phantoms raw/odir/*", *HELD_OUT_ANEW},
        back={"index_source *"},
    ),
    Mutation("a change made and undone", both(config(("seed", 9)), config(("seed", 7)))),
]


def matches(job: str, patterns: set[str]) -> bool:
    return any(fnmatch(job, pattern) for pattern in patterns)


@pytest.mark.parametrize("mutation", [*MUTATIONS, Mutation("all undone", lambda place: None)], ids=lambda m: m.name)
def test_exactly_what_a_change_concerns_computes_again(place: Workspace, mutation: Mutation) -> None:
    """One run undoes the change before and has this one: what comes back from the cache is told from what computes."""
    back = place.undo()
    again = place.computed(lambda: mutation.apply(place))
    place.back = mutation.back
    jobs, said = set(place.records()), place.said
    wanted = {job for job in jobs if (matches(job, mutation.again) and not matches(job, mutation.but)) or matches(job, back)}
    assert again == wanted, f"missed {sorted(wanted - again)}, needless {sorted(again - wanted)}"
    assert [pattern for pattern in mutation.again | mutation.but if not any(fnmatch(job, pattern) for job in jobs)] == []
    assert mutation.says in said

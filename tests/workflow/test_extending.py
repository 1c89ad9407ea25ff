"""The recipes of docs/extending.md work: each is followed, from the page itself, in a copy of the checkout."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import heldout_made
from runs import MINI, ROOT, copy_checkout

PAGE = ROOT / "docs/extending.md"
FILE_PATTERN = re.compile(r"^`(?P<path>[\w./-]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)
END_PATTERN = re.compile(r"^At the end of `(?P<path>[\w./-]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)
HELD_OUT_PATTERN = re.compile(r"^```yaml\n(held_out:\n.*?)^```$", re.M | re.S)


def read_recipe(title: str) -> str:
    """One section of the page."""
    return next(s for s in re.split(r"^## ", PAGE.read_text(), flags=re.M) if s.startswith(f"{title}\n"))


def read_block(title: str, introduction: str) -> str:
    """The code block of a section that comes after a line that begins so."""
    block = re.search(rf"^{re.escape(introduction)}.*?\n```\w+\n(.*?)^```$", read_recipe(title), re.M | re.S)
    assert block is not None, f"{title} has no block after {introduction!r}"
    return block[1]


def follow_recipe(title: str, checkout: Path) -> None:
    """Write every file that a section of the page gives the text of, and add what belongs to the end of one."""
    for block in FILE_PATTERN.finditer(read_recipe(title)):
        path = checkout / block["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["text"])
    for block in END_PATTERN.finditer(read_recipe(title)):
        with (checkout / block["path"]).open("a") as file:
            file.write(f"\n\n{block['text']}")


def replace_text(path: Path, old: str, new: str) -> None:
    """Change a text that is there."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new))


def write_config(path: Path, **changes: Any) -> Path:
    """The mini config with other sections."""
    path.write_text(yaml.safe_dump(yaml.safe_load(MINI.read_text()) | changes))
    return path


def call_checkout(checkout: Path, folder: Path, config: Path, *targets: str, ok: bool = True) -> str:
    """Snakemake of a copy of the checkout; what it said."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", *targets, "--snakefile", checkout / "Snakefile", "--directory", folder,
         "--configfile", config, "--cores", "2"],
        cwd=checkout, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert (run.returncode == 0) is ok, run.stdout[-6000:]
    return run.stdout


def test_a_source(tmp_path: Path) -> None:
    checkout, folder = tmp_path / "checkout", tmp_path / "run"
    copy_checkout(checkout)
    follow_recipe("A source", checkout)
    folder.mkdir()
    source = checkout / "workflow/medmim/sources/shapes"
    phantom = {"sources": {"shapes": {"origin": "phantom", "patients": 40}}}
    counts = {"train": {"comparison": 8}, "benchmark": {"comparison": 8}}
    mini = yaml.safe_load(MINI.read_text())
    config = write_config(
        tmp_path / "shapes.yaml", **phantom, qa=mini["qa"] | counts,
        models={"mantis": mini["models"]["mantis"]}, prediction=mini["prediction"] | {"conditions": ["plain"]},
    )  # fmt: skip

    # To the leaderboard, with no other source.
    call_checkout(checkout, folder, config, "results/mini/leaderboard.parquet")
    benchmark = pd.read_parquet(folder / "results/mini/qa/benchmark.parquet")
    assert set(benchmark["source"]) == {"shapes"} and set(benchmark["task"]) == {"shapes_change"}
    board = pd.read_parquet(folder / "results/mini/leaderboard.parquet")
    rows = board.query("model == 'mantis' and metric == 'accuracy' and condition == 'plain' and part == 'all'")
    assert dict(zip(rows["set"], rows["n"], strict=True)) == {"comparison": len(benchmark), "held_in": len(benchmark)}

    # Questions that claim another source's set are refused by name, in the template and in source.yaml.
    target = "results/mini/qa/benchmark.parquet"
    replace_text(source / "questions.py", 'ability="comparison",', 'ability="comparison",\n    set="odir",')
    message = call_checkout(checkout, folder, config, target, ok=False)
    assert "source shapes: task shapes_change makes questions of benchmark.odir" in message
    assert "the set odir is supplied by odir" in message
    replace_text(source / "source.yaml", "benchmark: [comparison]", "benchmark: [odir]")
    message = call_checkout(checkout, folder, config, target, ok=False)
    assert "source shapes: sets names odir, the held-out set of source odir" in message

    # A held-out set of its own joins the benchmark and has a label.
    replace_text(source / "questions.py", 'set="odir"', 'set="shapes"')
    held_out = HELD_OUT_PATTERN.search(read_recipe("A source"))
    assert held_out is not None
    facts = (source / "source.yaml").read_text()
    (source / "source.yaml").write_text(facts[: facts.index("sets:")] + held_out[1])
    counts = {"train": {}, "benchmark": {"shapes": 8}, "pretrain": 0}
    untrained = {"any": {"family": "chat", "hub": "a/b"}}
    config = write_config(tmp_path / "held_out.yaml", **phantom, qa=mini["qa"] | counts, models=untrained)
    call_checkout(checkout, folder, config, target)
    assert Counter(pd.read_parquet(folder / target)["set"]) == {"shapes": 8}

    # An origin whose module is not there is refused before anything runs.
    config = write_config(tmp_path / "download.yaml", sources={"shapes": {"origin": "download"}})
    message = call_checkout(checkout, folder, config, target, ok=False)
    assert "shapes can't be of origin download" in message and "no download.py" in message


@dataclass(frozen=True)
class Extended:
    """A finished run of a copy of the checkout in which every recipe but the first was followed, on the first one's source."""

    checkout: Path
    folder: Path
    config: Path

    @property
    def run(self) -> Path:
        return self.folder / "results/mini"

    def read_board(self, **criteria: str) -> pd.DataFrame:
        """Rows of the leaderboard, as asked plainly and on all questions."""
        board = pd.read_parquet(self.run / "leaderboard.parquet")
        for column, value in {"condition": "plain", "part": "all", **criteria}.items():
            board = board[board[column] == value]
        return board


def write_pairs(folder: Path) -> None:
    """A folder in the layout of the recipe's held-out set; the last record's answer is no letter."""
    folder.mkdir(parents=True)
    options = ["left", "right", "neither"]
    for number in range(7):
        record = {"id": f"p{number}", "person": f"person-{number // 2}", "question": f"Which disc is larger in pair {number}?"}
        record |= {"options": options, "answer": "ABC"[number % 3] if number < 6 else "?", "images": []}
        for place in (0, 1):
            name = f"{number}_{place}.jpg"
            (folder / name).write_bytes(heldout_made.make_jpeg(100 * number + place))
            record["images"].append(name)
        with (folder / "pairs.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    root = tmp_path_factory.mktemp("extended")
    checkout, folder = root / "checkout", root / "run"
    copy_checkout(checkout)
    for title in ("A source", "A model family", "A held-out set", "A metric", "An ability"):
        follow_recipe(title, checkout)
    package = checkout / "workflow/medmim"
    sets = package / "config/question_sets.py"
    coreference = next(line for line in sets.read_text().splitlines(keepends=True) if 'name="coreference"' in line)
    replace_text(sets, coreference, coreference + read_block("An ability", "After the line of coreference"))
    questions, last_line = package / "sources/shapes/questions.py", read_block("An ability", "As the last line of")
    replace_text(questions, "\n\n\ndef build_single_facts", f"\n{last_line}\n\ndef build_single_facts")
    facts = package / "sources/shapes/source.yaml"
    facts.write_text(facts.read_text().partition("sets:")[0] + read_block("An ability", "**3. The source declares it**"))

    write_pairs(folder / "data/pairs")
    mini = yaml.safe_load(MINI.read_text())
    counts = {"train": {"comparison": 8, "counting": 8}, "benchmark": {"comparison": 8, "counting": 8}}
    heldout = yaml.safe_load(read_block("A held-out set", "Use it in the config"))["heldout"]
    config = write_config(
        root / "extended.yaml",
        sources={"shapes": {"origin": "phantom", "patients": 60}},
        qa=mini["qa"] | counts | {"open_fraction": 0.4},
        heldout={name: settings | {"max_rejected": 0.2} for name, settings in heldout.items()},
        **yaml.safe_load(read_block("A model family", "Use it in the config")),
        prediction=mini["prediction"] | {"conditions": ["plain"]},
    )
    exports = [f"results/mini/export/{name}/files.parquet" for name in ("hf", "lmms-eval")]
    call_checkout(checkout, folder, config, "all", "results/mini/merged/med-vicuna/files.parquet", *exports)
    return Extended(checkout, folder, config)


def test_a_model_family(extended: Extended) -> None:
    assert set(extended.read_board(metric="accuracy", set="held_in")["model"]) == {"vicuna", "med-vicuna", "chance", "majority"}
    assert len(extended.read_board(metric="accuracy_minus_base", model="med-vicuna", set="held_in")) == 1
    assert "USER: " in (extended.run / "report.html").read_text() and (extended.run / "cards/med-vicuna.md").is_file()
    assert "USER: " in (extended.run / "merged/med-vicuna/chat_template.jinja").read_text()
    config = write_config(extended.config.parent / "wrong.yaml", models={"a": {"family": "vicunna", "hub": "a/b"}})
    message = call_checkout(extended.checkout, extended.folder, config, "--dry-run", ok=False)
    assert "models.a.family: no model family 'vicunna'; did you mean 'vicuna'?" in message


def test_a_held_out_set(extended: Extended) -> None:
    rows = extended.read_board(metric="accuracy", set="pairs", model="vicuna")
    assert rows[["ability", "n", "n_patients"]].to_numpy().tolist() == [["further", 6, 3]]
    rejected = pd.read_parquet(extended.run / "qa/heldout/pairs.rejected.parquet")
    assert rejected["reason"].tolist() == ["the answer is '?', no letter of its 3 options"]
    assert ">Pairs" in (extended.run / "report.html").read_text()
    assert "| Held-out Pairs " in (extended.run / "tables/leaderboard.md").read_text()
    card = (extended.run / "export/hf/README.md").read_text()
    assert "| pairs | 6 | Pairs, example/pairs | CC0 1.0 |" in card and "https://huggingface.co/datasets/example/pairs" in card
    assert pq.read_schema(extended.run / "qa/heldout/pairs.parquet").metadata[b"licence"] == b"CC0 1.0"


def test_a_metric(extended: Extended) -> None:
    scores = extended.run / "scores/vicuna.parquet"
    values = pd.read_parquet(scores).query("metric == 'length_ratio'")["value"]
    assert len(values) and values.between(0, 1).all()
    assert pq.read_schema(scores).field("metric").metadata[b"meaning"].endswith(b"rouge_l, length_ratio")
    assert len(extended.read_board(metric="length_ratio", set="held_in", model="med-vicuna")) == 1
    assert "length ratio" in (extended.run / "report.html").read_text()
    assert "Open questions: length ratio in percent" in (extended.run / "tables/leaderboard.md").read_text()
    task = (extended.run / "export/lmms-eval/medmim_counting_open.yaml").read_text()
    assert "metric: length_ratio" in task
    assert "score_length_ratio" in (extended.run / "export/lmms-eval/open_ended.py").read_text()


def test_an_ability(extended: Extended) -> None:
    benchmark = pd.read_parquet(extended.run / "qa/benchmark.parquet")
    counting = benchmark[benchmark["set"] == "counting"]
    assert set(counting["ability"]) == {"counting"} and set(counting["kind"]) == {"closed", "open"}
    assert "counting" in set(pd.read_parquet(extended.run / "qa/train.parquet")["ability"])
    rows = extended.read_board(metric="accuracy", set="counting", model="med-vicuna")
    assert rows["n"].tolist() == [(counting["kind"] == "closed").sum()] and rows["ability"].tolist() == ["counting"]
    assert ">Counting" in (extended.run / "report.html").read_text()
    assert "| Held-in Counting " in (extended.run / "tables/leaderboard.md").read_text()
    assert "medmim_counting" in (extended.run / "export/lmms-eval/medmim_held_in.yaml").read_text()
    config = write_config(extended.config.parent / "wrong.yaml", qa={"train": {"countng": 8}})
    message = call_checkout(extended.checkout, extended.folder, config, "--dry-run", ok=False)
    assert "qa.train.countng: unknown key; did you mean 'counting'?" in message
    code = "from medmim.benchmarks.released.records import slot_from_name; print(slot_from_name('Med_MIM_train_Counting.json'))"
    environment = os.environ | {"PYTHONPATH": str(extended.checkout / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert "set='counting'" in done.stdout

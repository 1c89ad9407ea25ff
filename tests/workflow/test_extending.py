"""The recipes of docs/extending.md work: each is followed, from the page itself, in a copy of the checkout."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from runs import MINI, ROOT, copy_checkout

PAGE = ROOT / "docs/extending.md"
FILE_PATTERN = re.compile(r"^`(?P<path>[\w./-]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)
HELD_OUT_PATTERN = re.compile(r"^```yaml\n(held_out:\n.*?)^```$", re.M | re.S)


def read_recipe(title: str) -> str:
    """One section of the page."""
    return next(s for s in re.split(r"^## ", PAGE.read_text(), flags=re.M) if s.startswith(f"{title}\n"))


def follow_recipe(title: str, checkout: Path) -> None:
    """Write every file that a section of the page gives the text of."""
    for block in FILE_PATTERN.finditer(read_recipe(title)):
        path = checkout / block["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["text"])


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
    config = write_config(tmp_path / "held_out.yaml", **phantom, qa=mini["qa"] | counts, models={})
    call_checkout(checkout, folder, config, target)
    assert Counter(pd.read_parquet(folder / target)["set"]) == {"shapes": 8}

    # An origin whose module is not there is refused before anything runs.
    config = write_config(tmp_path / "download.yaml", sources={"shapes": {"origin": "download"}})
    message = call_checkout(checkout, folder, config, target, ok=False)
    assert "shapes can't be of origin download" in message and "no download.py" in message

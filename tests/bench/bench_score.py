"""Speed of scoring at the paper's size: eight models under all five conditions. Run: python tests/bench/bench_score.py.

The programs are run as the workflow runs them, two jobs at a time, on made-up replies; then parts of them, beside scipy.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from medmim.config.conditions import CONDITIONS
from medmim.questions.conditions import apply_condition
from medmim.questions.prompt import LETTERS
from medmim.scoring import bootstrap
from medmim.scoring.reply_parser import parse_reply
from medmim.tables import table_io

sys.path.insert(0, str(Path(__file__).parents[1]))
from config_files import config_file

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
# questions, share of open ones, patients and patients a question, of the release's benchmark (abilities: patients are a guess)
SETS = {
    "temporal": (933, 0.03, 150, 1),
    "reasoning": (484, 0.06, 300, 1),
    "comparison": (344, 0.40, 150, 1),
    "coreference": (1463, 0.04, 300, 3),
    "rad": (366, 0.20, 315, 3),
    "odir": (600, 0.50, 600, 1),
}
MODELS = [f"model-{i}" for i in range(8)]
TEXTS = [
    "progressive disease",
    "stable disease",
    "partial response",
    "complete response",
    "benign",
    "probably benign",
    "suspicious",
]
REPLIES = (
    "{L}", "{L}: {t}", "The answer is {L}, because the lesion in the second image is larger than before.", "{t}.",
    "Looking at both images, the lesion has grown and there is new edema around it.\nTherefore, the answer is ({L}).",
    "The images show a {t} in the left lobe, not a {u}.", "I'm sorry, but I cannot interpret medical images.", "A mass is seen.",
)  # fmt: skip
RESAMPLES = 10_000
TUNED = dict(zip(MODELS[1::2], MODELS[::2], strict=True))


def time_call(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def make_questions(rng: np.random.Generator, split: str) -> list[dict[str, Any]]:
    """Questions; half of the patients of the comparison set are in both splits, as in the release, and no others."""
    rows = []
    for name, (count, opened, patients, each) in SETS.items():
        for i in range(count):
            is_open = rng.random() < opened
            options = [str(t) for t in rng.permutation(TEXTS)[: rng.integers(2, 8)]]
            gold = int(rng.integers(len(options)))
            rows.append(
                {
                    "qa_id": f"{split}-{name}-{i:05}", "split": split, "ability": name, "set": name,
                    "kind": "open" if is_open else "closed",
                    "task": "bench", "question": "<image><image>Which?", "options": [] if is_open else options,
                    "answer": options[gold], "answer_index": None if is_open else gold,
                    "image_ids": [f"{split}-{name}-{i}-{k}" for k in range(2)],
                    "patient_ids": [
                        f"{name}/{p}" if name == "comparison" and p % 2 else f"{name}/{p} {split}"
                        for p in rng.choice(patients, each, replace=False)
                    ],
                    "source": "bench", "generator": "bench/1", "findings": [],
                }
            )  # fmt: skip
    return rows


def make_replies(rng: np.random.Generator, qa: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    rows = []
    for condition in CONDITIONS:
        for one in apply_condition(qa, condition):
            options = one.options or TEXTS
            pick, other = (int(i) for i in rng.permutation(len(options))[:2])
            reply = str(rng.choice(REPLIES)).format(L=LETTERS[pick], t=options[pick], u=options[other])
            likely = [float(x) for x in rng.normal(size=len(one.options))]
            rows.append(
                {
                    "qa_id": one.qa_id, "model": model, "condition": condition, "rotation": one.rotation,
                    "prompt_sha256": "0" * 64, "reply": reply, "option_logprobs": likely,
                    "text_logprobs": likely if condition == "plain" else [], "failure": "",
                }
            )  # fmt: skip
    return rows


def run_program(name: str, cfg: dict[str, Any], *arguments: str | Path | Sequence[Path]) -> float:
    """Seconds that a program takes."""
    words = [str(w) for a in arguments for w in (a if isinstance(a, list | tuple) else [a])]
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, str(SCRIPTS / name), "--cfg", config_file(cfg), *words]
    return time_call(lambda: subprocess.run(call, env=env, check=True, capture_output=True))[0]


def run_workflow(folder: Path, rng: np.random.Generator) -> None:
    """The jobs of scoring, two at a time."""
    qa = make_questions(rng, "benchmark")
    table_io.write_table(folder / "qa.parquet", "qa", qa)
    table_io.write_table(folder / "train.parquet", "qa", make_questions(rng, "train"))
    for model in MODELS:
        table_io.write_table(folder / f"{model}.predictions.parquet", "predictions", make_replies(rng, qa, model))
    count = len(table_io.read_table(folder / f"{MODELS[0]}.predictions.parquet", "predictions"))
    answers = [folder / f"{model}.answers.parquet" for model in MODELS]

    def score_model(model: str) -> float:
        predictions_path, answers_path = folder / f"{model}.predictions.parquet", folder / f"{model}.answers.parquet"
        cfg = {"conditions": list(CONDITIONS)}
        return run_program(
            "score.py", cfg, "--qa", folder / "qa.parquet", "--predictions", predictions_path, "--answers", answers_path
        )

    with ThreadPoolExecutor(2) as two:
        scored, each = time_call(lambda: list(two.map(score_model, MODELS)))
    print(f"score: {len(MODELS)} models x {count} replies to {len(qa)} questions in {scored:.1f} s, {np.mean(each):.1f} s a job")
    board, compared = folder / "leaderboard.parquet", folder / "comparisons.parquet"
    ranked = run_program(
        "leaderboard.py", {"seed": 1, "resamples": RESAMPLES, "pairs": TUNED}, "--qa", folder / "qa.parquet",
        "--train", folder / "train.parquet", "--answers", answers, "--leaderboard", board, "--comparisons", compared,
    )  # fmt: skip
    cells, pairs = (len(table_io.read_table(path, path.stem)) for path in (board, compared))
    print(f"leaderboard: {cells} cells, {pairs} comparisons, {RESAMPLES} resamples in {ranked:.1f} s")
    models = {name: {"hub": "bench/made-up", "base": TUNED.get(name)} for name in MODELS}
    printed = run_program(
        "print_leaderboard.py", {"models": models, "min_open_ranked": 50, "precision": "bf16", "versions": {}},
        "--leaderboard", board, "--qa", folder / "qa.parquet",
        "--predictions", [folder / f"{model}.predictions.parquet" for model in MODELS],
        "--csv", folder / "board.csv", "--markdown", folder / "board.md", "--latex", folder / "board.tex",
    )  # fmt: skip
    print(f"tables for papers in {printed:.1f} s")
    print(f"all of it: {scored + ranked + printed:.1f} s")


def main() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        run_workflow(Path(folder), rng)

    qa = make_questions(rng, "benchmark")
    closed = {q["qa_id"]: q["options"] for q in qa if q["kind"] == "closed"}
    pairs = [(row["reply"], closed[row["qa_id"]]) for row in make_replies(rng, qa, "model") if row["qa_id"] in closed][:20_000]
    seconds, _ = time_call(lambda: [parse_reply(reply, options) for reply, options in pairs])
    print(f"extraction: {len(pairs)} replies in {seconds:.2f} s, {seconds / len(pairs) * 1e6:.0f} us each")

    design = bootstrap.Design.from_patients([q["patient_ids"] for q in qa if q["set"] == "reasoning"])
    values = rng.random((design.n_questions, 64))
    ours, _ = time_call(lambda: bootstrap.resample_means(values, design, RESAMPLES, rng).confidence_interval())
    counts = np.bincount(design.unit)

    def run_scipy() -> None:
        for column in range(4):
            stats.bootstrap(
                (np.bincount(design.unit, values[design.question, column]), counts),
                lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
                paired=True, vectorized=True, n_resamples=RESAMPLES, method="BCa", rng=rng,
            )  # fmt: skip

    scipys, _ = time_call(run_scipy)
    print(
        f"bootstrap of 64 columns, {design.n_units} patients: {ours:.2f} s; scipy column by column {scipys * 16:.1f} s (4 timed)"
    )
    print(f"ratio: {scipys * 16 / ours:.0f} times as fast")


if __name__ == "__main__":
    main()

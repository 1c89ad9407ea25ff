"""Speed of scoring: extraction, and the leaderboard at the paper's size. Run: python tests/bench/bench_score.py."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from medmim import tables
from medmim.score import bootstrap
from medmim.score.answers import answers
from medmim.score.extract import LETTERS, read
from medmim.score.leaderboard import leaderboard

# questions, share of open ones, patients and patients a question, of the release's benchmark (abilities: patients are a guess)
SETS = {
    "temporal": (933, 0.03, 150, 1),
    "reasoning": (484, 0.06, 300, 1),
    "comparison": (344, 0.40, 150, 1),
    "coreference": (1463, 0.04, 300, 3),
    "rad": (366, 0.20, 315, 3),
    "odir": (600, 0.50, 300, 1),
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


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def benchmark(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for name, (count, opened, patients, each) in SETS.items():
        for i in range(count):
            is_open = rng.random() < opened
            options = [str(t) for t in rng.permutation(TEXTS)[: rng.integers(2, 8)]]
            gold = int(rng.integers(len(options)))
            rows.append(
                {
                    "qa_id": f"{name}-{i:05}", "split": "benchmark", "ability": name, "set": name,
                    "kind": "open" if is_open else "closed",
                    "task": "bench", "question": "?", "options": [] if is_open else options, "answer": options[gold],
                    "answer_index": None if is_open else gold, "image_ids": ["i"],
                    "patient_ids": [f"{name}/{p}" for p in rng.choice(patients, each, replace=False)],
                    "source": "bench", "generator": "bench/1", "findings": [],
                }
            )  # fmt: skip
    return rows


def replies(rng: np.random.Generator, qa: list[dict[str, Any]], model: str, condition: str) -> pa.Table:
    rows = []
    for item in qa:
        options = item["options"] or TEXTS
        pick, other = (int(i) for i in rng.permutation(len(options))[:2])
        reply = str(rng.choice(REPLIES)).format(L=LETTERS[pick], t=options[pick], u=options[other])
        rows.append(
            {
                "qa_id": item["qa_id"], "model": model, "condition": condition, "rotation": 0, "prompt_sha256": "0" * 64,
                "reply": reply, "option_logprobs": [float(x) for x in rng.normal(size=len(item["options"]))],
                "text_logprobs": [], "failure": "",
            }
        )  # fmt: skip
    return tables.build("predictions", rows)


def main() -> None:
    rng = np.random.default_rng(0)
    qa = benchmark(rng)
    table = tables.build("qa", qa)
    given = {model: [replies(rng, qa, model, condition) for condition in ("plain", "blind")] for model in MODELS}

    closed = {q["qa_id"]: q["options"] for q in qa if q["kind"] == "closed"}
    pairs = [
        (row["reply"], closed[row["qa_id"]])
        for files in given.values()
        for file in files
        for row in file.to_pylist()
        if row["qa_id"] in closed
    ][:10_000]
    seconds, _ = timed(lambda: [read(reply, options) for reply, options in pairs])
    print(f"extraction: {len(pairs)} replies in {seconds:.2f} s, {seconds / len(pairs) * 1e6:.0f} us each")

    seconds, scored = timed(lambda: [tables.build("answers", answers(table, files)) for files in given.values()])
    print(f"score: {len(qa)} questions x {len(MODELS)} models x 2 conditions in {seconds:.2f} s")

    frames = [answer.to_pandas() for answer in scored]
    tuned = dict(zip(MODELS[::2], MODELS[1::2], strict=True))
    seconds, rows = timed(lambda: leaderboard(table, frames, seed=1, resamples=RESAMPLES, pairs=tuned))
    print(f"leaderboard: {len(rows)} cells, {RESAMPLES} resamples in {seconds:.2f} s")

    patients = [q["patient_ids"] for q in qa if q["set"] == "reasoning"]
    design = bootstrap.Design.of(patients)
    values = rng.random((len(patients), 64))
    ours, _ = timed(lambda: bootstrap.interval(bootstrap.resampled_means(values, design, RESAMPLES, rng)))
    counts = np.bincount(design.unit)

    def loop() -> None:
        for column in range(4):
            stats.bootstrap(
                (np.bincount(design.unit, values[design.question, column]), counts),
                lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
                paired=True, vectorized=True, n_resamples=RESAMPLES, method="percentile", rng=rng,
            )  # fmt: skip

    scipys, _ = timed(loop)
    print(
        f"bootstrap of 64 columns, {design.n_units} patients: {ours:.2f} s; scipy column by column {scipys * 16:.1f} s (4 timed)"
    )
    print(f"ratio: {scipys * 16 / ours:.0f} times as fast")


if __name__ == "__main__":
    main()

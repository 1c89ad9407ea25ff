"""Replies in batches beside one at a time, and what the lines' likelihoods cost. Run: python tests/bench/bench_predict.py.

Random models of the demo's size, on one thread: processor time, since wall time says little on a shared machine.
"""

import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parents[1]))
from medmim.models import tiny
from medmim.models.families import registry
from medmim.models.families.registry import FAMILIES
from medmim.models.prompting import Prompter, prompter
from medmim.models.weights import load
from medmim.prediction.local_replies import Question, Reply, ask, batches, questions
from medmim.questions.conditions import asked
from medmim.tables import images
from medmim.tables.images import ImageStore
from small_models import dialogues, image_rows, question_row

COUNT, NEW = 96, 24
ROUNDS = 3
TEXTS = (
    "Which of the images shows the larger lesion?",
    "In which image is the lesion on the left side of the organ?",
    "How did the lesion change between the first image and the last image?",
)
OPTIONS = ("the first image", "the second image", "neither of the images", "both of them")


def benchmark(ids: list[str]) -> list[dict[str, object]]:
    """Closed questions about two or three of the images, with two to four options."""
    common = {
        "split": "benchmark",
        "ability": "comparison",
        "set": "comparison",
        "task": "t",
        "source": "embed",
        "generator": "t/1",
    }
    rows = []
    for n, (text, count, shown) in enumerate(product(TEXTS, (2, 3, 4), (2, 3) * (COUNT // 18 + 1))):
        some = [ids[(n * 3 + k) % len(ids)] for k in range(shown)]
        rows.append(question_row(text=text, options=OPTIONS[:count], answer=OPTIONS[n % count], image_ids=some, **common))
    return rows[:COUNT]


def timed(model: object, by: Prompter, given: list[Question], size: int) -> tuple[float, dict[str, Reply]]:
    start, found = time.process_time(), {}
    for batch in batches(given, size):
        found |= {q.key: r for q, r in zip(batch, ask(model, by, batch, max_new_tokens=NEW), strict=True)}
    return time.process_time() - start, found


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = image_rows(40)
        images.write(Path(folder, "images.parquet"), rows)
        store = ImageStore([Path(folder, "images.parquet")])
        qa = benchmark([str(row["image_id"]) for row in rows])
        contents = {i: i for row in qa for i in row["image_ids"]}
        for name in FAMILIES:
            family, place = registry.family(name), Path(folder, name)
            tokenizer = tiny.tokenizer(family, dialogues(qa))
            torch.manual_seed(3)
            LlavaForConditionalGeneration(tiny.config(family, tokenizer, heads=8)).save_pretrained(place)
            tokenizer.save_pretrained(place)
            by, model = prompter(name, place, store.image), load(place, family=name)
            plain, lines = (
                questions(asked(qa, "plain"), by, system="", lines=wanted, images=contents, basis=[]) for wanted in (False, True)
            )
            timed(model, by, plain, 32)  # images are read once
            best: dict[tuple[bool, int], float] = {}
            for _ in range(ROUNDS):
                said = {}
                for given, size in ((plain, 1), (plain, 32), (lines, 32)):
                    took, found = timed(model, by, given, size)
                    key = (given is lines, size)
                    best[key] = min(took, best.get(key, took))
                    said[key] = [found[q.key].text for q in given]
                assert said[False, 1] == said[False, 32] == said[True, 32]
            one, many, more = best[False, 1], best[False, 32], best[True, 32]
            print(f"{name}: {len(plain)} questions, {len(batches(plain, 32))} batches of at most 32, {NEW} tokens each")
            print(f"  one at a time {one:.2f} s, in batches {many:.2f} s: {one / many:.1f} times as fast, the same replies")
            print(f"  with the likelihoods of all options' lines {more:.2f} s: {more / many:.2f} times as long")


if __name__ == "__main__":
    main()

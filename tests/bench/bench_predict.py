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
from medmim.models.families.prompter import Prompter
from medmim.models.families.registry import FAMILIES
from medmim.models.prompting import load_prompter
from medmim.models.weights import load_model
from medmim.prediction.local_replies import PromptedQuestion, Reply, ask_batch, make_batches, prepare_questions
from medmim.questions.conditions import apply_condition
from medmim.tables import images
from medmim.tables.images import ImageStore
from small_models import make_dialogues, make_image_rows, question_row

COUNT, NEW = 96, 24
ROUNDS = 3
TEXTS = (
    "Which of the images shows the larger lesion?",
    "In which image is the lesion on the left side of the organ?",
    "How did the lesion change between the first image and the last image?",
)
OPTIONS = ("the first image", "the second image", "neither of the images", "both of them")


def make_questions(ids: list[str]) -> list[dict[str, object]]:
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


def time_replies(
    model: object, model_prompter: Prompter, given_questions: list[PromptedQuestion], size: int
) -> tuple[float, dict[str, Reply]]:
    start, replies_by_key = time.process_time(), {}
    for batch in make_batches(given_questions, size):
        replies_by_key |= {
            q.key: r for q, r in zip(batch, ask_batch(model, model_prompter, batch, max_new_tokens=NEW), strict=True)
        }
    return time.process_time() - start, replies_by_key


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = make_image_rows(40)
        images.write_images(Path(folder, "images.parquet"), rows)
        store = ImageStore([Path(folder, "images.parquet")])
        qa = make_questions([str(row["image_id"]) for row in rows])
        contents = {i: i for row in qa for i in row["image_ids"]}
        for name in FAMILIES:
            family, place = registry.get_family(name), Path(folder, name)
            tokenizer = tiny.build_tokenizer(family, make_dialogues(qa))
            torch.manual_seed(3)
            LlavaForConditionalGeneration(tiny.build_config(family, tokenizer, heads=8)).save_pretrained(place)
            tokenizer.save_pretrained(place)
            model_prompter, model = load_prompter(name, place, store.read_image), load_model(place, family=name)
            plain, lines = (
                prepare_questions(
                    apply_condition(qa, "plain"), model_prompter, system="", wants_lines=with_lines, images=contents, basis=[]
                )
                for with_lines in (False, True)
            )
            time_replies(model, model_prompter, plain, 32)  # images are read once
            best: dict[tuple[bool, int], float] = {}
            for _ in range(ROUNDS):
                texts = {}
                for given_questions, size in ((plain, 1), (plain, 32), (lines, 32)):
                    took, replies_by_key = time_replies(model, model_prompter, given_questions, size)
                    key = (given_questions is lines, size)
                    best[key] = min(took, best.get(key, took))
                    texts[key] = [replies_by_key[q.key].text for q in given_questions]
                assert texts[False, 1] == texts[False, 32] == texts[True, 32]
            one, many, more = best[False, 1], best[False, 32], best[True, 32]
            print(f"{name}: {len(plain)} questions, {len(make_batches(plain, 32))} batches of at most 32, {NEW} tokens each")
            print(f"  one at a time {one:.2f} s, in batches {many:.2f} s: {one / many:.1f} times as fast, the same replies")
            print(f"  with the likelihoods of all options' lines {more:.2f} s: {more / many:.2f} times as long")


if __name__ == "__main__":
    main()

"""A tiny base model: what the demo tunes. Two stages, as the real ones had them before any multi-image question.

1. vision: the tower learns attributes, each closed single-image question being one label of its image.
2. language: projector and language model learn single-image and text-only questions; the tower stays as it is.
So it can read one image, and has never seen two.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlavaConfig, LlavaForConditionalGeneration, get_wsd_schedule

from medmim.common.errors import UserError
from medmim.config.training import TinyBase
from medmim.models.attention import keep_inside_samples
from medmim.models.collate import Sample, at_labels, collate, normalise, pack
from medmim.models.families.base import IGNORE, Layout
from medmim.training.data.order import mixed, positions
from medmim.training.runtime.progress import Progress, cumulated, row

log = logging.getLogger("medmim")
HELD_BACK = 0.05
"""Share of the patients whose questions are kept from both stages, to see whether the base can read one image."""
BETAS = (0.9, 0.98)
CLIP = 1.0
WARMUP, DECAY = 0.05, 0.3
"""Shares of the steps: the learning rate rises, holds, falls to zero."""


@dataclass(frozen=True)
class Labels:
    """Attribute labels of images."""

    image_ids: list[str]
    tasks: list[str]
    classes: list[list[str]]
    """Answers of each task, sorted."""
    targets: np.ndarray
    """int64, images x tasks: index of the answer in classes, IGNORE where the task asks nothing of the image."""


def labels(qa: pd.DataFrame) -> Labels:
    """Of the closed questions about one image: their task is the attribute, their answer its value.

    Raises UserError where there is no such question, or two answers of one task for one image.
    """
    single = qa[(qa["kind"] == "closed") & (qa["image_ids"].str.len() == 1)]
    facts = pd.DataFrame(
        {"image": single["image_ids"].str[0], "task": single["task"], "answer": single["answer"]}
    ).drop_duplicates()
    if facts.empty:
        raise UserError("no closed question about a single image to learn from: see qa.pretrain in the config")
    twice = facts[facts.duplicated(["image", "task"])]
    if len(twice):
        first = twice.iloc[0]
        raise UserError(f"image {first['image']} has several answers of task {first['task']}: a task must ask one attribute")
    images, tasks = sorted(set(facts["image"])), sorted(set(facts["task"]))
    classes = [sorted(set(facts.loc[facts["task"] == task, "answer"])) for task in tasks]
    targets = np.full((len(images), len(tasks)), IGNORE, np.int64)
    place = {image: i for i, image in enumerate(images)}
    for column, (task, answers) in enumerate(zip(tasks, classes, strict=True)):
        of_task = facts[facts["task"] == task]
        targets[of_task["image"].map(place), column] = of_task["answer"].map(answers.index)
    return Labels(images, tasks, classes, targets)


def held_back(qa: pd.DataFrame, seed: int) -> np.ndarray:
    """bool, questions: those of a random HELD_BACK of the patients."""
    patients = sorted({p for row_patients in qa["patient_ids"] for p in row_patients})
    chosen = np.random.default_rng([seed, *b"held back"]).permutation(len(patients))[: int(HELD_BACK * len(patients))]
    held = {patients[i] for i in chosen}
    return np.array([not held.isdisjoint(p) for p in qa["patient_ids"]], bool)


def make(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """The model of a config with random weights, float32; the same for the same seed."""
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(config).float()


def _fit(
    stage: str, parameters: Iterable[nn.Parameter], loss_at: Callable[[int], Tensor], rate: float, tokens: np.ndarray
) -> list[dict[str, object]]:
    """AdamW over `loss_at(step)`, one step per entry of `tokens` (seen after it); rows of the loss table."""
    trained = list(parameters)
    optimizer = torch.optim.AdamW(trained, rate, betas=BETAS, weight_decay=0.0)
    steps = len(tokens)
    schedule = get_wsd_schedule(
        optimizer, int(WARMUP * steps), int(DECAY * steps), num_training_steps=steps, decay_type="linear", min_lr_ratio=0.0
    )
    progress = Progress(stage, steps)
    rows = []
    for step in range(steps):
        loss = loss_at(step)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP)
        learning_rate = schedule.get_last_lr()[0]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        rows.append(row(stage, step + 1, loss.item(), learning_rate, int(tokens[step])))
        progress.step(step + 1, loss.item(), int(tokens[step]))
    progress.close(steps, int(tokens[-1]))
    return rows


def features(model: LlavaForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """What the tower gives the projector: images x tokens x vision width."""
    states = model.model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
    chosen = states[model.config.vision_feature_layer]
    return chosen[:, 1:] if model.config.vision_feature_select_strategy == "default" else chosen


def train_vision(
    model: LlavaForConditionalGeneration, layout: Layout, known: Labels, pixels: np.ndarray, cfg: TinyBase, seed: int
) -> list[dict[str, object]]:
    """Stage 1. `pixels`: uint8, images x H x W x 3, in the order of `known.image_ids`. Returns rows of the loss table."""
    torch.manual_seed(seed)
    sizes = [len(c) for c in known.classes]
    heads = nn.Linear(model.config.vision_config.hidden_size, sum(sizes))
    order = positions(seed, len(known.image_ids), cfg.vision_steps * cfg.vision_batch)

    def loss_at(step: int) -> Tensor:
        chosen = order[step * cfg.vision_batch : (step + 1) * cfg.vision_batch]
        pooled = features(model, normalise(layout.family, pixels[chosen])).mean(1)
        targets = torch.from_numpy(known.targets[chosen])
        parts = [
            cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
            for logits, target in zip(heads(pooled).split(sizes, 1), targets.unbind(1), strict=True)
        ]
        return torch.stack(parts).sum() / (targets != IGNORE).sum().clamp(min=1)

    lengths = np.full(len(known.image_ids), layout.image_tokens)
    trained = [*model.model.vision_tower.parameters(), *heads.parameters()]
    model.train()
    return _fit("vision", trained, loss_at, cfg.learning_rate, cumulated(lengths[order], cfg.vision_batch))


def train_language(
    model: LlavaForConditionalGeneration,
    layout: Layout,
    samples: Sequence[Sample],
    lengths: np.ndarray,
    tasks: Sequence[str],
    cfg: TinyBase,
    seed: int,
) -> list[dict[str, object]]:
    """Stage 2, the tower frozen. `lengths` (after expansion) and `tasks` of the samples. Returns rows of the loss table."""
    torch.manual_seed(seed)
    model.requires_grad_(True).model.vision_tower.requires_grad_(False)
    order = mixed(seed, tasks, cfg.language_steps * cfg.language_batch)
    keep_inside_samples(model)

    def loss_at(step: int) -> Tensor:
        chosen = order[step * cfg.language_batch : (step + 1) * cfg.language_batch]
        return model(**at_labels(pack(layout, [samples[i] for i in chosen])), use_cache=False).loss

    trained = [p for p in model.parameters() if p.requires_grad]
    model.train()
    rows = _fit("language", trained, loss_at, cfg.learning_rate, cumulated(lengths[order], cfg.language_batch))
    model.set_attn_implementation("sdpa")
    return rows


@torch.inference_mode()
def first_token_right(
    model: LlavaForConditionalGeneration, layout: Layout, samples: Sequence[Sample], batch: int = 64
) -> np.ndarray:
    """bool, samples: whether the likeliest first token of the answer, of the whole vocabulary, is the gold's (its letter)."""
    model.eval()
    right = []
    for start in range(0, len(samples), batch):
        tensors = collate(layout, samples[start : start + batch])
        wanted = tensors.pop("labels")
        place = (wanted != IGNORE).int().argmax(1)
        each = torch.arange(len(wanted))
        logits = model(**tensors).logits[each, place - 1]
        right.append((logits.argmax(-1) == wanted[each, place]).numpy())
    return np.concatenate(right) if right else np.empty(0, bool)


def reading(tasks: Sequence[str], abilities: Sequence[str], right: np.ndarray) -> dict[str, dict[str, float]]:
    """Accuracy on held-back questions: of each ability (single, text) and of each task: {name: {accuracy, n}}."""
    total: Counter[str] = Counter()
    good: Counter[str] = Counter()
    for task, ability, ok in zip(tasks, abilities, right.tolist(), strict=True):
        for name in (ability, task):
            total[name] += 1
            good[name] += ok
    return {name: {"accuracy": good[name] / n, "n": n} for name, n in sorted(total.items())}

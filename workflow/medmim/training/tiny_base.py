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
from medmim.models.attention import enable_packed_attention
from medmim.models.collate import Sample, collate_samples, normalise_pixels, pack_samples, restrict_loss_to_labels
from medmim.models.families.base import IGNORE_INDEX, Layout
from medmim.training.data.order import order_mixed_groups, order_samples
from medmim.training.runtime.progress import ProgressReporter, build_loss_row, cumulate_tokens

log = logging.getLogger("medmim")
VALIDATION_SHARE = 0.05
"""Share of the patients whose questions are kept from both stages, to see whether the base can read one image."""
ADAM_BETAS = (0.9, 0.98)
MAX_GRADIENT_NORM = 1.0
WARMUP_SHARE, DECAY_SHARE = 0.05, 0.3
"""Shares of the steps: the learning rate rises, holds, falls to zero."""


@dataclass(frozen=True)
class AttributeLabels:
    """Attribute labels of images."""

    image_ids: list[str]
    tasks: list[str]
    classes: list[list[str]]
    """Answers of each task, sorted."""
    targets: np.ndarray
    """int64, images x tasks: index of the answer in classes, IGNORE where the task asks nothing of the image."""


def collect_attribute_labels(qa: pd.DataFrame) -> AttributeLabels:
    """Of the closed questions about one image: their task is the attribute, their answer its value.

    Raises UserError where there is no such question, or two answers of one task for one image.
    """
    single_image = qa[(qa["kind"] == "closed") & (qa["image_ids"].str.len() == 1)]
    facts = pd.DataFrame(
        {"image": single_image["image_ids"].str[0], "task": single_image["task"], "answer": single_image["answer"]}
    ).drop_duplicates()
    if facts.empty:
        raise UserError("no closed question about a single image to learn from: see qa.pretrain in the config")
    conflicts = facts[facts.duplicated(["image", "task"])]
    if len(conflicts):
        first_conflict = conflicts.iloc[0]
        raise UserError(
            f"image {first_conflict['image']} has several answers of task {first_conflict['task']}: a task must ask one attribute"
        )
    images, tasks = sorted(set(facts["image"])), sorted(set(facts["task"]))
    classes = [sorted(set(facts.loc[facts["task"] == task, "answer"])) for task in tasks]
    targets = np.full((len(images), len(tasks)), IGNORE_INDEX, np.int64)
    row_of_image = {image: i for i, image in enumerate(images)}
    for column, (task, answers) in enumerate(zip(tasks, classes, strict=True)):
        of_task = facts[facts["task"] == task]
        targets[of_task["image"].map(row_of_image), column] = of_task["answer"].map(answers.index)
    return AttributeLabels(images, tasks, classes, targets)


def select_validation_split(qa: pd.DataFrame, seed: int) -> np.ndarray:
    """bool, questions: those of a random HELD_BACK of the patients."""
    patients = sorted({p for row_patients in qa["patient_ids"] for p in row_patients})
    chosen = np.random.default_rng([seed, *b"held back"]).permutation(len(patients))[: int(VALIDATION_SHARE * len(patients))]
    validation_patients = {patients[i] for i in chosen}
    return np.array([not validation_patients.isdisjoint(p) for p in qa["patient_ids"]], bool)


def build_model(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """The model of a config with random weights, float32; the same for the same seed."""
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(config).float()


def _train_parameters(
    stage: str, parameters: Iterable[nn.Parameter], loss_at: Callable[[int], Tensor], rate: float, tokens: np.ndarray
) -> list[dict[str, object]]:
    """AdamW over `loss_at(step)`, one step per entry of `tokens` (seen after it); rows of the loss table."""
    trained = list(parameters)
    optimizer = torch.optim.AdamW(trained, rate, betas=ADAM_BETAS, weight_decay=0.0)
    steps = len(tokens)
    schedule = get_wsd_schedule(
        optimizer,
        int(WARMUP_SHARE * steps),
        int(DECAY_SHARE * steps),
        num_training_steps=steps,
        decay_type="linear",
        min_lr_ratio=0.0,
    )
    progress = ProgressReporter(stage, steps)
    rows = []
    for step in range(steps):
        loss = loss_at(step)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        learning_rate = schedule.get_last_lr()[0]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        rows.append(build_loss_row(stage, step + 1, loss.item(), learning_rate, int(tokens[step])))
        progress.report_step(step + 1, loss.item(), int(tokens[step]))
    progress.close(steps, int(tokens[-1]))
    return rows


def extract_features(model: LlavaForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """What the tower gives the projector: images x tokens x vision width."""
    states = model.model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
    layer_states = states[model.config.vision_feature_layer]
    return layer_states[:, 1:] if model.config.vision_feature_select_strategy == "default" else layer_states


def train_vision(
    model: LlavaForConditionalGeneration, layout: Layout, labels: AttributeLabels, pixels: np.ndarray, cfg: TinyBase, seed: int
) -> list[dict[str, object]]:
    """Stage 1. `pixels`: uint8, images x H x W x 3, in the order of `known.image_ids`. Returns rows of the loss table."""
    torch.manual_seed(seed)
    sizes = [len(c) for c in labels.classes]
    heads = nn.Linear(model.config.vision_config.hidden_size, sum(sizes))
    order = order_samples(seed, len(labels.image_ids), cfg.vision_steps * cfg.vision_batch)

    def loss_at(step: int) -> Tensor:
        chosen = order[step * cfg.vision_batch : (step + 1) * cfg.vision_batch]
        pooled = extract_features(model, normalise_pixels(layout.family, pixels[chosen])).mean(1)
        targets = torch.from_numpy(labels.targets[chosen])
        parts = [
            cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="sum")
            for logits, target in zip(heads(pooled).split(sizes, 1), targets.unbind(1), strict=True)
        ]
        return torch.stack(parts).sum() / (targets != IGNORE_INDEX).sum().clamp(min=1)

    lengths = np.full(len(labels.image_ids), layout.image_tokens)
    trained = [*model.model.vision_tower.parameters(), *heads.parameters()]
    model.train()
    return _train_parameters("vision", trained, loss_at, cfg.learning_rate, cumulate_tokens(lengths[order], cfg.vision_batch))


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
    order = order_mixed_groups(seed, tasks, cfg.language_steps * cfg.language_batch)
    enable_packed_attention(model)

    def loss_at(step: int) -> Tensor:
        chosen = order[step * cfg.language_batch : (step + 1) * cfg.language_batch]
        return model(**restrict_loss_to_labels(pack_samples(layout, [samples[i] for i in chosen])), use_cache=False).loss

    trained = [p for p in model.parameters() if p.requires_grad]
    model.train()
    rows = _train_parameters("language", trained, loss_at, cfg.learning_rate, cumulate_tokens(lengths[order], cfg.language_batch))
    model.set_attn_implementation("sdpa")
    return rows


@torch.inference_mode()
def is_first_token_correct(
    model: LlavaForConditionalGeneration, layout: Layout, samples: Sequence[Sample], batch_size: int = 64
) -> np.ndarray:
    """bool, samples: whether the likeliest first token of the answer, of the whole vocabulary, is the gold's (its letter)."""
    model.eval()
    correct = []
    for start in range(0, len(samples), batch_size):
        tensors = collate_samples(layout, samples[start : start + batch_size])
        labels = tensors.pop("labels")
        label_start = (labels != IGNORE_INDEX).int().argmax(1)
        each = torch.arange(len(labels))
        logits = model(**tensors).logits[each, label_start - 1]
        correct.append((logits.argmax(-1) == labels[each, label_start]).numpy())
    return np.concatenate(correct) if correct else np.empty(0, bool)


def summarise_accuracy(tasks: Sequence[str], abilities: Sequence[str], correct: np.ndarray) -> dict[str, dict[str, float]]:
    """Accuracy on held-back questions: of each ability (single, text) and of each task: {name: {accuracy, n}}."""
    counts: Counter[str] = Counter()
    correct_counts: Counter[str] = Counter()
    for task, ability, ok in zip(tasks, abilities, correct.tolist(), strict=True):
        for name in (ability, task):
            counts[name] += 1
            correct_counts[name] += ok
    return {name: {"accuracy": correct_counts[name] / n, "n": n} for name, n in sorted(counts.items())}

"""From one source's images and findings to its questions in all splits."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Literal

import pandas as pd

from medmim.questions.balance import shares
from medmim.questions.cohort import Patient, cohort
from medmim.questions.row import Row
from medmim.questions.templates import Fact, ask
from medmim.questions.validation import problems

log = logging.getLogger("medmim")
VARIANTS = 3
"""Times the same fact is asked in training and pretraining, in other words and another order; once in the benchmark."""


def in_benchmark(patient_id: str, fraction: float) -> bool:
    """Whether a patient is of the benchmark: by a hash of the id, so that it stays so as data grow."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") < fraction * 2**64


def _enough(facts: Iterable[Fact], variants: int) -> Iterator[Fact]:
    """The facts of each template, no more than are enough; where there are fewer, in up to `variants` variants.

    The commonest golds are cut first, each by content: a rare one is needed to make the set even.
    """
    stated: defaultdict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        stated[fact.template.task, fact.template.form].append(fact)
    for found in stated.values():
        enough = found[0].template.enough
        if len(found) > enough:
            found = _cut(found, enough)
        for variant in range(max(1, min(variants, enough // len(found)))):
            yield from found if variant == 0 else (replace(f, variant=variant) for f in found)


def _cut(facts: list[Fact], most: int) -> list[Fact]:
    golds: defaultdict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        golds[fact.gold].append(fact)
    kept = shares({gold: len(golds[gold]) for gold in sorted(golds)}, most)
    for found in golds.values():
        found.sort(key=lambda f: hashlib.sha256("|".join(i.image_id for i in f.images).encode()).digest())
    return [fact for gold, n in kept.items() for fact in golds[gold][:n]]


def _truth(images: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """A phantom's truth (path, name, value) as findings named truth:<name>, without an id."""
    found = images[["origin_file", "patient_id", "study_id", "image_id"]].merge(truth, left_on="origin_file", right_on="path")
    return found.assign(name="truth:" + found["name"].astype(str), value=found["value"].astype(str), finding_id="")


def questions(
    source: str,
    images: pd.DataFrame,
    findings: pd.DataFrame,
    *,
    seed: int,
    benchmark_fraction: float,
    open_fraction: float,
    option_order: Literal["shuffled", "natural"] = "shuffled",
    pretrain: bool = False,
    wordings: int | None = None,
    composed_images: int | None = None,
    truth: pd.DataFrame | None = None,
) -> list[Row]:
    """All questions of a source: rows of the qa table, of splits train, benchmark and, if asked for, pretrain.

    `images` and `findings` need cohort.IMAGE_COLUMNS and FINDING_COLUMNS (`images` also origin_file where there is a
    phantom's `truth`: columns path, name, value). Held-out sources are benchmark only, composed ones train only.
    `option_order`: shuffled, or natural, e.g. from mild to severe: a tiny model has no time to learn which letter stands
    before which text. `wordings`: at most so many of a task's form. `composed_images`: most images of a composed question,
    where the source makes those. Pretraining questions come from the patients of the train split: about one image, and in
    words only.
    """
    module = import_module(f"medmim.sources.{source}.questions")
    state = module.facts if composed_images is None else partial(module.facts, most=composed_images)
    if truth is not None:
        findings = pd.concat([findings, _truth(images, truth)], ignore_index=True)
    patients = cohort(images, findings)
    parts: dict[str, list[Patient]] = {"train": [], "benchmark": []}
    for patient in patients:
        held = in_benchmark(patient.patient_id, benchmark_fraction) if len(module.SPLITS) > 1 else "benchmark" in module.SPLITS
        parts["benchmark" if held else "train"].append(patient)
    rows: list[Row] = []
    asked = partial(ask, source=source, seed=seed, natural=option_order == "natural", wordings=wordings)
    for split in module.SPLITS:
        facts = list(_known(_enough(state(parts[split]), VARIANTS if split == "train" else 1)))
        rows += asked(facts, split=split, open_fraction=open_fraction)
        if split == "train" and pretrain:
            rows += asked(facts, split="pretrain", text_only=True)
            rows += asked(_known(_enough(module.singles(parts[split]), VARIANTS)), split="pretrain")
    _verify(rows, set(images["image_id"]))
    return list({row["qa_id"]: row for row in rows}.values())


def _known(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Facts whose findings are rows of the findings table: a phantom's truth has no id and is not cited."""
    return (replace(f, findings=tuple(i for i in f.findings if i)) if "" in f.findings else f for f in facts)


def _verify(rows: Sequence[Row], images: set[str]) -> None:
    for row in rows:
        if found := problems(row, images):
            raise AssertionError(f"{row['task']} {row['qa_id']}: {'; '.join(found)}: {row['question']!r} {row['options']}")

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

from medmim.questions.balance import allocate_evenly
from medmim.questions.cohort import Patient, build_cohort
from medmim.questions.row import Row
from medmim.questions.templates import Fact, rows_from_facts
from medmim.questions.validation import check_row

log = logging.getLogger("medmim")
VARIANTS_PER_FACT = 3
"""Times the same fact is asked in training and pretraining, in other words and another order; once in the benchmark."""


def is_benchmark_patient(patient_id: str, fraction: float) -> bool:
    """Whether a patient is of the benchmark: by a hash of the id, so that it stays so as data grow."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") < fraction * 2**64


def _limit_facts(facts: Iterable[Fact], variants: int) -> Iterator[Fact]:
    """The facts of each template, no more than are enough; where there are fewer, in up to `variants` variants.

    The commonest golds are cut first, each by content: a rare one is needed to make the set even.
    """
    facts_by_form: defaultdict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        facts_by_form[fact.template.task, fact.template.form].append(fact)
    for group in facts_by_form.values():
        enough = group[0].template.max_facts
        if len(group) > enough:
            group = _cut_common_golds(group, enough)
        for variant in range(max(1, min(variants, enough // len(group)))):
            yield from group if variant == 0 else (replace(f, variant=variant) for f in group)


def _cut_common_golds(facts: list[Fact], max_facts: int) -> list[Fact]:
    facts_by_gold: defaultdict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        facts_by_gold[fact.gold].append(fact)
    kept_counts = allocate_evenly({gold: len(facts_by_gold[gold]) for gold in sorted(facts_by_gold)}, max_facts)
    for group in facts_by_gold.values():
        group.sort(key=lambda f: hashlib.sha256("|".join(i.image_id for i in f.images).encode()).digest())
    return [fact for gold, n in kept_counts.items() for fact in facts_by_gold[gold][:n]]


def _truth_as_findings(images: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """A phantom's truth (path, name, value) as findings named truth:<name>, without an id."""
    merged = images[["origin_file", "patient_id", "study_id", "image_id"]].merge(truth, left_on="origin_file", right_on="path")
    return merged.assign(name="truth:" + merged["name"].astype(str), value=merged["value"].astype(str), finding_id="")


def generate_questions(
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
    state_facts = module.build_facts if composed_images is None else partial(module.build_facts, most=composed_images)
    if truth is not None:
        findings = pd.concat([findings, _truth_as_findings(images, truth)], ignore_index=True)
    patients = build_cohort(images, findings)
    patients_by_split: dict[str, list[Patient]] = {"train": [], "benchmark": []}
    for patient in patients:
        is_benchmark = (
            is_benchmark_patient(patient.patient_id, benchmark_fraction)
            if len(module.SPLITS) > 1
            else "benchmark" in module.SPLITS
        )
        patients_by_split["benchmark" if is_benchmark else "train"].append(patient)
    rows: list[Row] = []
    rows_of = partial(rows_from_facts, source=source, seed=seed, natural=option_order == "natural", wordings=wordings)
    for split in module.SPLITS:
        facts = list(
            _drop_uncited_ids(_limit_facts(state_facts(patients_by_split[split]), VARIANTS_PER_FACT if split == "train" else 1))
        )
        rows += rows_of(facts, split=split, open_fraction=open_fraction)
        if split == "train" and pretrain:
            rows += rows_of(facts, split="pretrain", text_only=True)
            rows += rows_of(
                _drop_uncited_ids(_limit_facts(module.build_single_facts(patients_by_split[split]), VARIANTS_PER_FACT)),
                split="pretrain",
            )
    _verify_rows(rows, set(images["image_id"]))
    return list({row["qa_id"]: row for row in rows}.values())


def _drop_uncited_ids(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Facts whose findings are rows of the findings table: a phantom's truth has no id and is not cited."""
    return (replace(f, findings=tuple(i for i in f.findings if i)) if "" in f.findings else f for f in facts)


def _verify_rows(rows: Sequence[Row], images: set[str]) -> None:
    for row in rows:
        if faults := check_row(row, images):
            raise AssertionError(f"{row['task']} {row['qa_id']}: {'; '.join(faults)}: {row['question']!r} {row['options']}")

"""From one source's images and findings to its questions in all splits."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Literal, Protocol, cast

import pandas as pd

from medmim.common.errors import UserError
from medmim.config.source_plugins import list_suppliers
from medmim.questions.balance import allocate_evenly
from medmim.questions.cohort import Patient, build_cohort
from medmim.questions.row import Row
from medmim.questions.templates import Fact, rows_from_facts
from medmim.questions.validation import check_row

log = logging.getLogger("medmim")
VARIANTS_PER_FACT = 3
"""Times the same fact is asked in training and pretraining, in other words and another order; once in the benchmark."""


class QuestionModule(Protocol):
    """What a source's questions.py offers. That of a source of composed questions takes `most`, their most images, too."""

    def build_facts(self, patients: list[Patient]) -> Iterator[Fact]:
        """What can be asked of some patients, of one split; each fact's template says which set it belongs to."""


class PretrainModule(QuestionModule, Protocol):
    """What it offers besides where the source declares the set single."""

    def build_single_facts(self, patients: list[Patient]) -> Iterator[Fact]:
        """What can be asked of one image, for tiny base models."""


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
    module: QuestionModule,
    images: pd.DataFrame,
    findings: pd.DataFrame,
    *,
    sets: Mapping[str, Sequence[str]],
    seed: int,
    benchmark_fraction: float,
    open_fraction: float,
    open_fractions: Mapping[str, float] = MappingProxyType({}),
    option_order: Literal["shuffled", "natural"] = "shuffled",
    pretrain: bool = False,
    wordings: int | None = None,
    composed_images: int | None = None,
    disputed_labels: bool = False,
    truth: pd.DataFrame | None = None,
) -> list[Row]:
    """All questions of a source: rows of the qa table, of splits train, benchmark and, if asked for, pretrain.

    `images` and `findings` need cohort.IMAGE_COLUMNS and FINDING_COLUMNS (`images` also origin_file where there is a
    phantom's `truth`: columns path, name, value). `module` is the source's questions.py, `sets` the sets by split that its
    source.yaml declares: where those of training and of the benchmark are both among them, each gets its own patients.
    `open_fraction`: share of open questions, of the sets that `open_fractions` names that of the set.
    `option_order`: shuffled, or natural, e.g. from mild to severe: a tiny model has no time to learn which letter stands
    before which text. `wordings`: at most so many of a task's form. `composed_images`: most images of a composed question,
    where the source makes those. `disputed_labels`: ask also about those that the source's experts disagree on. Pretraining
    questions come from the patients of the train split: about one image, and in words only. Raises UserError where a question
    belongs to a set that is not declared.
    """
    build_facts: Callable[..., Iterator[Fact]] = module.build_facts
    state_facts = build_facts if composed_images is None else partial(build_facts, most=composed_images)
    splits = [split for split in ("train", "benchmark") if sets.get(split)]
    if truth is not None:
        findings = pd.concat([findings, _truth_as_findings(images, truth)], ignore_index=True)
    patients = build_cohort(images, findings)
    patients_by_split: dict[str, list[Patient]] = {"train": [], "benchmark": []}
    for patient in patients:
        is_benchmark = is_benchmark_patient(patient.patient_id, benchmark_fraction) if len(splits) > 1 else "benchmark" in splits
        patients_by_split["benchmark" if is_benchmark else "train"].append(patient)
    rows: list[Row] = []
    rows_of = partial(rows_from_facts, source=source, seed=seed, natural=option_order == "natural", wordings=wordings)
    for split in splits:
        split_facts = state_facts(patients_by_split[split])
        if not disputed_labels:
            split_facts = _drop_disputed_facts(split_facts, split)
        facts = list(_drop_uncited_ids(_limit_facts(split_facts, VARIANTS_PER_FACT if split == "train" else 1)))
        rows += rows_of(facts, split=split, open_fraction=open_fraction, open_fractions=open_fractions)
        if split == "train" and pretrain and "text" in sets.get("pretrain", ()):
            rows += rows_of(facts, split="pretrain", text_only=True)
        if split == "train" and pretrain and "single" in sets.get("pretrain", ()):
            single_facts = cast(PretrainModule, module).build_single_facts(patients_by_split[split])
            rows += rows_of(_drop_uncited_ids(_limit_facts(single_facts, VARIANTS_PER_FACT)), split="pretrain")
    check_declared_sets(source, rows, sets)
    _verify_rows(rows, set(images["image_id"]))
    return list({row["qa_id"]: row for row in rows}.values())


def check_declared_sets(source: str, rows: Iterable[Row], sets: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError where a question's set is none of those that its source declares."""
    descriptor = f"workflow/medmim/sources/{source}/source.yaml"
    for split, name, task in sorted({(row["split"], row["set"], row["task"]) for row in rows}):
        if name not in sets.get(split, ()):
            suppliers = [s for s in list_suppliers(name) if s != source]
            owner = f"the set {name} is supplied by {' and '.join(suppliers)}" if suppliers else f"no source declares {name}"
            raise UserError(
                f"source {source}: task {task} makes questions of {split}.{name}, which {descriptor} does not declare "
                f"({owner}): name another set in the task's template, or declare this one"
            )


def _drop_disputed_facts(facts: Iterable[Fact], split: str) -> Iterator[Fact]:
    """Facts whose gold the source's experts agree on; the log says how many are not among them."""
    count = 0
    for fact in facts:
        count += fact.is_disputed
        if not fact.is_disputed:
            yield fact
    if count:
        log.info("left out: %d × label that the source's experts disagree on (%s)", count, split)


def _drop_uncited_ids(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Facts whose findings are rows of the findings table: a phantom's truth has no id and is not cited."""
    return (replace(f, findings=tuple(i for i in f.findings if i)) if "" in f.findings else f for f in facts)


def _verify_rows(rows: Sequence[Row], images: set[str]) -> None:
    for row in rows:
        if faults := check_row(row, images):
            raise AssertionError(f"{row['task']} {row['qa_id']}: {'; '.join(faults)}: {row['question']!r} {row['options']}")

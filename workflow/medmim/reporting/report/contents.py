"""What the questions are made of, and the examples that the report shows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from medmim.questions.prompt import LETTERS, strip_placeholders
from medmim.reporting.report.board import ScoredModel, sort_sets
from medmim.scoring.items import METRICS

OPEN_METRICS = ("token_f1",)


@dataclass(frozen=True)
class SetCount:
    """Questions of one set in one split."""

    set: str
    closed: int
    open: int
    patients: int


@dataclass(frozen=True)
class TaskCount:
    """Questions of one task: counts by split, patients of both."""

    set: str
    task: str
    source: str
    train: int
    benchmark: int
    open: int
    patients: int


@dataclass(frozen=True)
class Composition:
    """Counts over the questions of one or both splits; the keys of the dicts are the splits."""

    sets: dict[str, list[SetCount]]
    tasks: list[TaskCount]
    images: dict[str, dict[int, int]]
    """Questions by number of images."""
    letters: dict[str, dict[str, int]]
    """Closed questions by letter of the gold."""
    questions: dict[str, int]
    patients: dict[str, int]
    shared_patients: int
    """Patients with questions in both splits."""


def _collect_patients(frame: pd.DataFrame) -> set[str]:
    return set(frame["patient_ids"].explode().dropna())


def count_composition(splits: Mapping[str, pd.DataFrame]) -> Composition:
    """Of the qa tables by split, `train` and `benchmark`."""
    sets: dict[str, list[SetCount]] = {}
    images: dict[str, dict[int, int]] = {}
    letters: dict[str, dict[str, int]] = {}
    for split, frame in splits.items():
        closed = frame["kind"] == "closed"
        sets[split] = []
        for name in sort_sets(frame["set"]):
            is_in_set = frame["set"] == name
            patients = len(_collect_patients(frame[is_in_set]))
            sets[split].append(SetCount(name, int((is_in_set & closed).sum()), int((is_in_set & ~closed).sum()), patients))
        images[split] = dict(sorted(Counter(map(len, frame["image_ids"])).items()))
        golds = Counter(map(int, frame.loc[closed, "answer_index"].dropna()))
        letters[split] = {LETTERS[k]: v for k, v in sorted(golds.items())}
    all_questions = pd.concat([frame.assign(split=split) for split, frame in splits.items()], ignore_index=True)
    tasks = [
        TaskCount(
            set=str(set_),
            task=str(task),
            source=str(source),
            train=int((part["split"] == "train").sum()),
            benchmark=int((part["split"] == "benchmark").sum()),
            open=int((part["kind"] == "open").sum()),
            patients=len(_collect_patients(part)),
        )
        for (set_, task, source), part in all_questions.groupby(["set", "task", "source"], sort=True)
    ]
    rank = {s: i for i, s in enumerate(sort_sets(t.set for t in tasks))}
    groups = [_collect_patients(frame) for frame in splits.values()]
    return Composition(
        sets=sets,
        tasks=sorted(tasks, key=lambda t: rank[t.set]),
        images=images,
        letters=letters,
        questions={split: len(frame) for split, frame in splits.items()},
        patients={split: len(_collect_patients(frame)) for split, frame in splits.items()},
        shared_patients=len(set.intersection(*groups)) if len(groups) > 1 else 0,
    )


@dataclass(frozen=True)
class JudgedReply:
    """What one model said, and how it was judged."""

    text: str
    status: str
    read: str
    right: bool | None
    """None where an open reply is not the gold word for word, or nothing was scored."""
    scores: dict[str, float]
    """Open questions: the metrics of OPEN_SHOWN."""


@dataclass(frozen=True)
class Example:
    """One benchmark question with every model's replies."""

    qa_id: str
    set: str
    task: str
    kind: str
    why: str
    """What it was chosen for; empty where it fills up the number."""
    question: str
    options: tuple[str, ...]
    answer: str
    answer_index: int | None
    image_ids: tuple[str, ...]
    replies: dict[str, dict[str, JudgedReply]] = field(default_factory=dict)
    """By model, then condition."""


REASON_GAINED, REASON_MISSED, REASON_OPEN = "base wrong, tuned right", "tuned wrong", "open question"


def choose_questions(
    benchmark: pd.DataFrame, accuracies: Mapping[str, pd.Series], models: Sequence[ScoredModel], count: int
) -> list[tuple[str, str]]:
    """(qa_id, why) of up to `count` questions of one set's qa rows.

    First one that the most tuned models gained over their bases, then one that the most tuned models miss, then an open
    one, then others, each from a task not seen yet where there is one. Among equals the lowest qa_id, a hash, decides.
    `accuracies` maps a model to its plain accuracy by qa_id.
    """
    rows = benchmark.sort_values("qa_id").drop_duplicates("qa_id").set_index("qa_id")
    gained, missed = pd.Series(0, rows.index), pd.Series(0, rows.index)
    for model in models:
        if model.role != "tuned" or model.name not in accuracies or model.base not in accuracies:
            continue
        tuned, base = (accuracies[str(m)].reindex(rows.index) for m in (model.name, model.base))
        gained += ((tuned == 1) & (base == 0)).astype(int)
        missed += (tuned == 0).astype(int)
    chosen: dict[str, str] = {}
    tasks: set[str] = set()

    def take_best(rank: pd.Series, why: str) -> None:
        candidates = rank[(rank > 0) & ~rank.index.isin(list(chosen))]
        if len(chosen) < count and len(candidates):
            is_new_task = ~rows.loc[candidates.index, "task"].isin(tasks)
            best = (candidates * 2 + is_new_task).idxmax()  # the first of the highest
            chosen[str(best)] = why
            tasks.add(str(rows.at[best, "task"]))

    take_best(gained, REASON_GAINED)
    take_best(missed, REASON_MISSED)
    take_best((rows["kind"] == "open").astype(int), REASON_OPEN)
    for _ in range(count):
        take_best(pd.Series(1, rows.index), "")
    return list(chosen.items())


def build_examples(
    benchmark: pd.DataFrame, answers: pd.DataFrame, predictions: pd.DataFrame, models: Sequence[ScoredModel], count: int
) -> list[Example]:
    """Up to `count` of each set, in the order of the sets, with what every model replied in every condition."""
    plain = answers[(answers["metric"] == "accuracy") & (answers["condition"] == "plain")].drop_duplicates(["model", "qa_id"])
    accuracies = {str(m): part.set_index("qa_id")["value"] for m, part in plain.groupby("model")}
    reasons: dict[str, str] = {}
    for set_ in sort_sets(benchmark["set"]):
        reasons |= dict(choose_questions(benchmark[benchmark["set"] == set_], accuracies, models, count))
    rows = {str(row["qa_id"]): row for row in benchmark[benchmark["qa_id"].isin(list(reasons))].to_dict("records")}
    shown_predictions = predictions[predictions["qa_id"].isin(list(reasons))]
    shown_answers = answers[answers["qa_id"].isin(list(reasons))]
    scores: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in shown_answers.to_dict("records"):
        scores.setdefault((row["qa_id"], row["model"], row["condition"]), {})[str(row["metric"])] = row
    chosen_examples = []
    for qa_id, why in reasons.items():
        row = rows[qa_id]
        replies: dict[str, dict[str, JudgedReply]] = {m.name: {} for m in models if m.role != "baseline"}
        for prediction in (
            shown_predictions[shown_predictions["qa_id"] == qa_id].sort_values(["model", "condition"]).to_dict("records")
        ):
            metric_rows = scores.get((qa_id, prediction["model"], prediction["condition"]), {})
            replies.setdefault(str(prediction["model"]), {})[str(prediction["condition"])] = _build_reply(
                str(prediction["reply"]), str(row["kind"]), metric_rows
            )
        chosen_examples.append(
            Example(
                qa_id=qa_id,
                set=str(row["set"]),
                task=str(row["task"]),
                kind=str(row["kind"]),
                why=why,
                question=strip_placeholders(str(row["question"])),
                options=tuple(row["options"]),
                answer=str(row["answer"]),
                answer_index=None if pd.isna(row["answer_index"]) else int(row["answer_index"]),
                image_ids=tuple(row["image_ids"]),
                replies={m: said for m, said in replies.items() if said},
            )
        )
    return chosen_examples


def _build_reply(text: str, kind: str, metric_rows: Mapping[str, Mapping[str, Any]]) -> JudgedReply:
    main_row = metric_rows.get(METRICS[kind][0])
    right = None if main_row is None else bool(main_row["value"] == 1)
    return JudgedReply(
        text=text,
        status=str(main_row["status"]) if main_row else "",
        read=str(main_row["read"]) if main_row else "",
        right=right if kind == "closed" or right else None,
        scores={m: float(metric_rows[m]["value"]) for m in OPEN_METRICS if m in metric_rows} if kind == "open" else {},
    )


@dataclass(frozen=True)
class SourceCount:
    """Images of one source."""

    source: str
    images: int
    patients: int
    studies: int
    modalities: tuple[str, ...]
    views: tuple[str, ...]


def count_sources(images: pd.DataFrame) -> list[SourceCount]:
    """Counts of an images table without its bytes."""
    return [
        SourceCount(
            source=str(name),
            images=len(part),
            patients=int(part["patient_id"].nunique()),
            studies=int(part["study_id"].nunique()),
            modalities=_sort_distinct(part["modality"]),
            views=_sort_distinct(part["view"]),
        )
        for name, part in images.groupby("source", sort=True)
    ]


@dataclass(frozen=True)
class FindingCount:
    """How often a source states each value of a finding."""

    source: str
    name: str
    values: tuple[tuple[str, int], ...]


def count_findings(findings: pd.DataFrame, counted: Mapping[str, Sequence[str]]) -> list[FindingCount]:
    """Counts of the findings that are to be counted, by source: those of these names, or of names with these before a colon."""
    is_counted = [
        bool({name, name.partition(":")[0]} & {*counted.get(source, ())})
        for source, name in zip(findings["source"], findings["name"], strict=True)
    ]
    groups = findings[is_counted].groupby(["source", "name"], sort=True)["value"]
    counts = [(str(source), str(name), values.value_counts().sort_index()) for (source, name), values in groups]
    return [FindingCount(source, name, tuple((str(v), int(n)) for v, n in values.items())) for source, name, values in counts]


def _sort_distinct(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(v) for v in values if v}))

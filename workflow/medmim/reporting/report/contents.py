"""What the questions are made of, and the examples that the report shows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from medmim.questions.prompt import LETTERS, blind
from medmim.reporting.report.board import Model, ordered

OPEN_SHOWN = ("token_f1",)


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


def _patients(frame: pd.DataFrame) -> set[str]:
    return set(frame["patient_ids"].explode().dropna())


def composition(splits: Mapping[str, pd.DataFrame]) -> Composition:
    """Of the qa tables by split, `train` and `benchmark`."""
    sets: dict[str, list[SetCount]] = {}
    images: dict[str, dict[int, int]] = {}
    letters: dict[str, dict[str, int]] = {}
    for split, frame in splits.items():
        closed = frame["kind"] == "closed"
        sets[split] = []
        for name in ordered(frame["set"]):
            own = frame["set"] == name
            patients = len(_patients(frame[own]))
            sets[split].append(SetCount(name, int((own & closed).sum()), int((own & ~closed).sum()), patients))
        images[split] = dict(sorted(Counter(map(len, frame["image_ids"])).items()))
        golds = Counter(map(int, frame.loc[closed, "answer_index"].dropna()))
        letters[split] = {LETTERS[k]: v for k, v in sorted(golds.items())}
    whole = pd.concat([frame.assign(split=split) for split, frame in splits.items()], ignore_index=True)
    tasks = [
        TaskCount(
            set=str(set_),
            task=str(task),
            source=str(source),
            train=int((part["split"] == "train").sum()),
            benchmark=int((part["split"] == "benchmark").sum()),
            open=int((part["kind"] == "open").sum()),
            patients=len(_patients(part)),
        )
        for (set_, task, source), part in whole.groupby(["set", "task", "source"], sort=True)
    ]
    rank = {s: i for i, s in enumerate(ordered(t.set for t in tasks))}
    groups = [_patients(frame) for frame in splits.values()]
    return Composition(
        sets=sets,
        tasks=sorted(tasks, key=lambda t: rank[t.set]),
        images=images,
        letters=letters,
        questions={split: len(frame) for split, frame in splits.items()},
        patients={split: len(_patients(frame)) for split, frame in splits.items()},
        shared_patients=len(set.intersection(*groups)) if len(groups) > 1 else 0,
    )


@dataclass(frozen=True)
class Reply:
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
    replies: dict[str, dict[str, Reply]] = field(default_factory=dict)
    """By model, then condition."""


GAINED, MISSED, OPEN = "base wrong, tuned right", "tuned wrong", "open question"


def choose(benchmark: pd.DataFrame, right: Mapping[str, pd.Series], models: Sequence[Model], count: int) -> list[tuple[str, str]]:
    """(qa_id, why) of up to `count` questions of one set's qa rows.

    First one that the most tuned models gained over their bases, then one that the most tuned models miss, then an open
    one, then others, each from a task not seen yet where there is one. Among equals the lowest qa_id, a hash, decides.
    `right` maps a model to its plain accuracy by qa_id.
    """
    rows = benchmark.sort_values("qa_id").drop_duplicates("qa_id").set_index("qa_id")
    gained, missed = pd.Series(0, rows.index), pd.Series(0, rows.index)
    for model in models:
        if model.role != "tuned" or model.name not in right or model.base not in right:
            continue
        tuned, base = (right[str(m)].reindex(rows.index) for m in (model.name, model.base))
        gained += ((tuned == 1) & (base == 0)).astype(int)
        missed += (tuned == 0).astype(int)
    chosen: dict[str, str] = {}
    tasks: set[str] = set()

    def take(rank: pd.Series, why: str) -> None:
        pool = rank[(rank > 0) & ~rank.index.isin(list(chosen))]
        if len(chosen) < count and len(pool):
            new = ~rows.loc[pool.index, "task"].isin(tasks)
            best = (pool * 2 + new).idxmax()  # the first of the highest
            chosen[str(best)] = why
            tasks.add(str(rows.at[best, "task"]))

    take(gained, GAINED)
    take(missed, MISSED)
    take((rows["kind"] == "open").astype(int), OPEN)
    for _ in range(count):
        take(pd.Series(1, rows.index), "")
    return list(chosen.items())


def examples(
    benchmark: pd.DataFrame, answers: pd.DataFrame, predictions: pd.DataFrame, models: Sequence[Model], count: int
) -> list[Example]:
    """Up to `count` of each set, in the order of the sets, with what every model replied in every condition."""
    plain = answers[(answers["metric"] == "accuracy") & (answers["condition"] == "plain")].drop_duplicates(["model", "qa_id"])
    right = {str(m): part.set_index("qa_id")["value"] for m, part in plain.groupby("model")}
    wanted: dict[str, str] = {}
    for set_ in ordered(benchmark["set"]):
        wanted |= dict(choose(benchmark[benchmark["set"] == set_], right, models, count))
    rows = {str(row["qa_id"]): row for row in benchmark[benchmark["qa_id"].isin(list(wanted))].to_dict("records")}
    said = predictions[predictions["qa_id"].isin(list(wanted))]
    judged = answers[answers["qa_id"].isin(list(wanted))]
    scores: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in judged.to_dict("records"):
        scores.setdefault((row["qa_id"], row["model"], row["condition"]), {})[str(row["metric"])] = row
    found = []
    for qa_id, why in wanted.items():
        row = rows[qa_id]
        replies: dict[str, dict[str, Reply]] = {m.name: {} for m in models if m.role != "baseline"}
        for one in said[said["qa_id"] == qa_id].sort_values(["model", "condition"]).to_dict("records"):
            got = scores.get((qa_id, one["model"], one["condition"]), {})
            replies.setdefault(str(one["model"]), {})[str(one["condition"])] = _reply(str(one["reply"]), str(row["kind"]), got)
        found.append(
            Example(
                qa_id=qa_id,
                set=str(row["set"]),
                task=str(row["task"]),
                kind=str(row["kind"]),
                why=why,
                question=blind(str(row["question"])),
                options=tuple(row["options"]),
                answer=str(row["answer"]),
                answer_index=None if pd.isna(row["answer_index"]) else int(row["answer_index"]),
                image_ids=tuple(row["image_ids"]),
                replies={m: said for m, said in replies.items() if said},
            )
        )
    return found


def _reply(text: str, kind: str, got: Mapping[str, Mapping[str, Any]]) -> Reply:
    main = got.get("accuracy" if kind == "closed" else "exact_match")
    right = None if main is None else bool(main["value"] == 1)
    return Reply(
        text=text,
        status=str(main["status"]) if main else "",
        read=str(main["read"]) if main else "",
        right=right if kind == "closed" or right else None,
        scores={m: float(got[m]["value"]) for m in OPEN_SHOWN if m in got} if kind == "open" else {},
    )


@dataclass(frozen=True)
class SourceCount:
    """Images of one source."""

    source: str
    images: int
    patients: int
    modalities: tuple[str, ...]
    views: tuple[str, ...]


def sources(images: pd.DataFrame) -> list[SourceCount]:
    """Counts of an images table without its bytes."""
    return [
        SourceCount(
            source=str(name),
            images=len(part),
            patients=int(part["patient_id"].nunique()),
            modalities=_distinct(part["modality"]),
            views=_distinct(part["view"]),
        )
        for name, part in images.groupby("source", sort=True)
    ]


def _distinct(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(v) for v in values if v}))

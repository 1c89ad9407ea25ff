"""Questions of all sources become the splits: checked, free of leaks, balanced, and as many as asked for."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from medmim.qa.check import SETS, problems
from medmim.qa.row import Row

STAGE = "merge_qa"
SUPPLIERS = {
    "temporal": ("embed", "lumiere"),
    "reasoning": ("embed",),
    "comparison": ("ms_cxr_t", "lumiere"),
    "coreference": ("embed", "lumiere"),
    "composed": ("pmc",),
    "rad": ("vqa_rad",),
    "odir": ("odir",),
    "single": ("embed", "lumiere", "ms_cxr_t", "pmc"),
    "text": ("embed", "lumiere", "ms_cxr_t"),
}
"""Sources whose questions make each set."""


class EmptySet(ValueError):
    """A set that is wanted has no question; the message says which source would supply it."""


@dataclass
class Merged:
    """The splits, each a list of rows of the qa table; what was turned away; and what is short, in words."""

    splits: dict[str, list[Row]] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)
    short: list[str] = field(default_factory=list)

    def counts(self) -> str:
        """Number of questions per split and set."""
        parts = []
        for split, rows in self.splits.items():
            sets = Counter(r["set"] for r in rows)
            each = ", ".join(f"{s} {sets[s]}" for s in SETS[split] if sets[s])
            parts.append(f"{split} {len(rows)}" + (f" ({each})" if each else ""))
        return "; ".join(parts)


K = TypeVar("K", bound=Hashable)


def shares(available: Mapping[K, int], n: int) -> dict[K, int]:
    """How many to take of each group so that n are taken as evenly as the groups allow; extras to the first in order."""
    taken = dict.fromkeys(available, 0)
    left = min(n, sum(available.values()))
    open_groups = [g for g in available if available[g]]
    while left:
        each, extra = divmod(left, len(open_groups))
        for i, group in enumerate(open_groups):
            more = min(each + (i < extra), available[group] - taken[group])
            taken[group] += more
            left -= more
        open_groups = [g for g in open_groups if taken[g] < available[g]]
    return taken


def _lot(seed: int, *names: object) -> bytes:
    return hashlib.sha256("|".join(map(str, (seed, *names))).encode()).digest()


def _groups(rows: Iterable[Row], key: Callable[[Row], K], seed: int) -> dict[K, list[Row]]:
    """Rows by key, the keys in an order drawn from the seed: who gets the odd one out is no matter of the alphabet."""
    groups: defaultdict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {k: groups[k] for k in sorted(groups, key=lambda k: _lot(seed, k))}


def _spread(rows: list[Row], seed: int) -> list[Row]:
    """Rows in the order to take them: new images first, then patients in turn, else by content."""
    rows = sorted(rows, key=lambda r: _lot(seed, r["qa_id"]))
    shown: Counter[tuple[str, ...]] = Counter()
    seen: Counter[tuple[str, ...]] = Counter()
    rank = {}
    for row in rows:
        images, patients = tuple(row["image_ids"]), tuple(row["patient_ids"])
        rank[row["qa_id"]] = (shown[images] if images else 0, seen[patients])
        shown[images] += 1
        seen[patients] += 1
    return sorted(rows, key=lambda r: rank[r["qa_id"]])


def _balanced(rows: list[Row], n: int, seed: int) -> list[Row]:
    """n closed questions of one task with golds and letters as even as there are."""
    cells = _groups(rows, lambda r: (str(r["answer"]), int(r["answer_index"])), seed)
    queues = [_spread(cell, seed) for cell in cells.values()]
    answers = {a: i for i, a in enumerate(dict.fromkeys(a for a, _ in cells))}
    answer, letter = np.array([answers[a] for a, _ in cells]), np.array([i for _, i in cells])
    of_answer, of_letter = np.zeros(len(answers), int), np.zeros(letter.max() + 1, int)
    taken = np.zeros(len(queues), int)
    sizes = np.array([len(q) for q in queues])
    chosen = []
    for _ in range(min(n, len(rows))):
        need = of_answer[answer] + of_letter[letter]
        cell = int(np.lexsort((taken, need, taken == sizes))[0])
        chosen.append(queues[cell][taken[cell]])
        taken[cell] += 1
        of_answer[answer[cell]] += 1
        of_letter[letter[cell]] += 1
    return chosen


def select(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """At most n rows of one set: open ones in the share they have, tasks evenly, then golds, letters and patients.

    What is taken depends on content and seed alone, not on the order of the rows.
    """
    if len(rows) <= n:
        return list(rows)
    kinds = _groups(rows, lambda r: r["kind"], seed)
    n_open = round(n * len(kinds.get("open", [])) / len(rows))
    chosen: list[Row] = []
    for kind, number in (("closed", n - n_open), ("open", n_open)):
        tasks = _groups(kinds.get(kind, []), lambda r: r["task"], seed)
        for task, share in shares({t: len(rs) for t, rs in tasks.items()}, number).items():
            forms = _groups(tasks[task], lambda r: len(r["options"]) or len(r["image_ids"]), seed)
            for form, part in shares({f: len(rs) for f, rs in forms.items()}, share).items():
                pool = forms[form]
                chosen += _balanced(pool, part, seed) if kind == "closed" else _spread(pool, seed)[:part]
    return chosen


def _sound(rows: Iterable[Row], images: Collection[str] | None, rejected: list[dict[str, str]]) -> list[Row]:
    """Rows without problems, each question once."""
    sound: dict[str, Row] = {}
    for row in rows:
        found = problems(row, images)
        if row["qa_id"] in sound:
            found = [f"same question as in {sound[row['qa_id']]['task']}, split {sound[row['qa_id']]['split']}"]
        if found:
            rejected.append(_rejection(row, "; ".join(found)))
        else:
            sound[row["qa_id"]] = row
    return list(sound.values())


def _rejection(row: Row, reason: str) -> dict[str, str]:
    return {"stage": STAGE, "item": f"{row['task']} {row['qa_id']}", "reason": reason}


def _leaks(row: Row, patients: set[str], images: set[str]) -> list[str]:
    found = [f"patient {p} is in the benchmark" for p in row["patient_ids"] if p in patients]
    return found + [f"image {i} is in the benchmark" for i in row["image_ids"] if i in images]


def merge(
    rows: Iterable[Row],
    *,
    seed: int,
    train: Mapping[str, int],
    benchmark: Mapping[str, int],
    pretrain: int = 0,
    images: Collection[str] | None = None,
) -> Merged:
    """Splits of at most so many questions a set (pretrain: half about one image, half text-only).

    Rows that are unsound, repeated, or that share a patient or image with any benchmark question are left out of
    training and listed. `images`: all image references there are, where they are to be checked. The result does not
    depend on the order of the rows. Raises EmptySet where a set is wanted and has no question.
    """
    merged = Merged()
    ordered = sorted(rows, key=lambda r: (r["split"] != "benchmark", r["split"], r["qa_id"], r["task"]))
    sound = _sound(ordered, images, merged.rejected)
    held = [r for r in sound if r["split"] == "benchmark"]
    patients, shown = {p for r in held for p in r["patient_ids"]}, {i for r in held for i in r["image_ids"]}
    pools: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sound:
        found = _leaks(row, patients, shown) if row["split"] != "benchmark" else []
        if found:
            merged.rejected.append(_rejection(row, "; ".join(found)))
        else:
            pools[row["split"], row["set"]].append(row)
    wanted = {
        "train": {s: train.get(s, 0) for s in SETS["train"]},
        "benchmark": {s: benchmark.get(s, 0) for s in SETS["benchmark"]},
        "pretrain": {"single": pretrain - pretrain // 2, "text": pretrain // 2},
    }
    unknown = [f"{split}.{s}" for split, counts in (("train", train), ("benchmark", benchmark)) for s in counts
               if counts[s] and s not in wanted[split]]  # fmt: skip
    if unknown:
        raise EmptySet(f"no such set: {', '.join(unknown)}; train has {SETS['train']}, benchmark {SETS['benchmark']}")
    empty = []
    for split, counts in wanted.items():
        chosen: list[Row] = []
        for name, n in counts.items():
            pool = pools[split, name]
            if n and not pool:
                sources = " or ".join(SUPPLIERS[name])
                empty.append(f"{split}.{name}: {n} questions wanted, none found; source {sources} would supply them")
            elif len(pool) < n:
                merged.short.append(f"{split}.{name}: {len(pool)} of {n} questions")
            chosen += select(pool, n, seed)
        merged.splits[split] = sorted(chosen, key=lambda r: (SETS[split].index(r["set"]), r["task"], r["qa_id"]))
    if empty:
        raise EmptySet("\n".join([*empty, "Add the source, or set the count to 0."]))
    return merged

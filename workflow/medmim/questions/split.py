"""Questions of all sources become the splits: checked, free of leaks, balanced, and as many as asked for."""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from types import MappingProxyType
from typing import TypeVar

from medmim.config.source_plugins import list_suppliers
from medmim.questions.balance import ClosedText, allocate_evenly, select_even
from medmim.questions.copies import EXACT, CopyIndex
from medmim.questions.prompt import strip_placeholders
from medmim.questions.row import Row
from medmim.questions.sets import SETS
from medmim.questions.validation import check_row

STAGE = "merge_qa"


class EmptySetError(ValueError):
    """A set that is wanted has no question; the message says which source would supply it."""


@dataclass
class MergeResult:
    """The splits, each a list of rows of the qa table; what was turned away; and what is short, in words."""

    splits: dict[str, list[Row]] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)
    short: list[str] = field(default_factory=list)

    def format_counts(self) -> str:
        """Number of questions per split and set."""
        parts = []
        for split, rows in self.splits.items():
            sets = Counter(r["set"] for r in rows)
            each = ", ".join(f"{s} {sets[s]}" for s in SETS[split] if sets[s])
            parts.append(f"{split} {len(rows)}" + (f" ({each})" if each else ""))
        return "; ".join(parts)


K = TypeVar("K", bound=Hashable)


def _lot_hash(seed: int, *names: object) -> bytes:
    return hashlib.sha256("|".join(map(str, (seed, *names))).encode()).digest()


def _group_rows(rows: Iterable[Row], key: Callable[[Row], K], seed: int) -> dict[K, list[Row]]:
    """Rows by key, the keys in an order drawn from the seed: who gets the odd one out is no matter of the alphabet."""
    groups: defaultdict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {k: groups[k] for k in sorted(groups, key=lambda k: _lot_hash(seed, k))}


def _order_by_novelty(rows: list[Row], seed: int) -> list[Row]:
    """Rows in the order to take them: new images first, then patients in turn, else by content."""
    rows = sorted(rows, key=lambda r: _lot_hash(seed, r["qa_id"]))
    image_counts: Counter[tuple[str, ...]] = Counter()
    patient_counts: Counter[tuple[str, ...]] = Counter()
    rank = {}
    for row in rows:
        images, patients = tuple(row["image_ids"]), tuple(row["patient_ids"])
        rank[row["qa_id"]] = (image_counts[images] if images else 0, patient_counts[patients])
        image_counts[images] += 1
        patient_counts[patients] += 1
    return sorted(rows, key=lambda r: rank[r["qa_id"]])


def _order_balanced(rows: list[Row], seed: int) -> list[Row]:
    """Closed questions of one task in the order to take them, so that golds and letters are as even as there are.

    Next is always one of the gold and letter taken least often so far, both counted together.
    """
    cells = _group_rows(rows, lambda r: (str(r["answer"]), int(r["answer_index"])), seed)
    queues = [deque(_order_by_novelty(cell, seed)) for cell in cells.values()]
    golds, letters = [gold for gold, _ in cells], [letter for _, letter in cells]
    of_gold, of_letter, taken = Counter[str](), Counter[int](), [0] * len(queues)
    # A cell's need is of_gold + of_letter. Within a letter of_gold alone decides, and it only grows: a heap for each
    # letter stays in order but for the cells of golds just taken, which are put right when they come to the top.
    heaps: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for cell, letter in enumerate(letters):
        heaps[letter].append((0, 0, cell))
    ordered: list[Row] = []
    while heaps:
        for heap in heaps.values():
            while heap[0][0] < of_gold[golds[heap[0][2]]]:
                _, times, cell = heap[0]
                heapreplace(heap, (of_gold[golds[cell]], times, cell))
        letter = min(heaps, key=lambda x: (heaps[x][0][0] + of_letter[x], *heaps[x][0][1:]))
        cell = heappop(heaps[letter])[2]
        ordered.append(queues[cell].popleft())
        taken[cell] += 1
        of_gold[golds[cell]] += 1
        of_letter[letter] += 1
        if queues[cell]:
            heappush(heaps[letter], (of_gold[golds[cell]], taken[cell], cell))
        elif not heaps[letter]:
            del heaps[letter]
    return ordered


def _drop_uneven(rows: list[Row], most: int) -> list[Row]:
    """At most so many closed questions, less those by which something in the texts is right more often than guessing."""
    texts = [
        ClosedText(strip_placeholders(r["question"]), tuple(r["options"]), int(r["answer_index"]), len(r["image_ids"]))
        for r in rows
    ]
    return [rows[place] for place in select_even(texts, most)]


def select_rows(rows: list[Row], n: int, seed: int, *, even: bool = False, open_fraction: float | None = None) -> list[Row]:
    """At most n rows of one set: open and closed, then tasks evenly, then golds, letters and patients.

    `open_fraction`: share of open ones; without it the share they have.
    `even`: fewer, where the same options would else be right too often: their text alone would tell.
    What is taken depends on content and seed alone, not on the order of the rows.
    """
    n = min(n, len(rows))
    if not n or (n == len(rows) and not even and open_fraction is None):
        return rows[:n]
    kinds = _group_rows(rows, lambda r: r["kind"], seed)
    available_open = len(kinds.get("open", []))
    n_open = round(n * (available_open / len(rows) if open_fraction is None else open_fraction))
    if open_fraction is not None:  # of what there is too little, the other kind makes up for
        n_open = max(min(n_open, available_open), n - (len(rows) - available_open))
    chosen: list[Row] = []
    for kind, number in (("closed", n - n_open), ("open", n_open)):
        queues: dict[str, dict[int, list[Row]]] = {}
        for task, task_rows in _group_rows(kinds.get(kind, []), lambda r: r["task"], seed).items():
            forms = _group_rows(task_rows, lambda r: len(r["options"]) or len(r["image_ids"]), seed)
            if kind == "closed":
                forms = {form: _order_balanced(pool, seed) for form, pool in forms.items()}
                queues[task] = {form: _drop_uneven(pool, number) for form, pool in forms.items()} if even else forms
            else:
                queues[task] = {form: _order_by_novelty(pool, seed) for form, pool in forms.items()}
        available = {task: {form: len(queue) for form, queue in forms.items()} for task, forms in queues.items()}
        for task, share in allocate_evenly({task: sum(forms.values()) for task, forms in available.items()}, number).items():
            for form, part in allocate_evenly(available[task], share).items():
                chosen += queues[task][form][:part]
    return chosen


def _drop_faulty(rows: Iterable[Row], images: Collection[str] | None, rejected: list[dict[str, str]]) -> list[Row]:
    """Rows without problems, each question once."""
    sound: dict[str, Row] = {}
    for row in rows:
        faults = check_row(row, images)
        if row["qa_id"] in sound:
            faults = [f"same question as in {sound[row['qa_id']]['task']}, split {sound[row['qa_id']]['split']}"]
        if faults:
            rejected.append(_rejection_row(row, "; ".join(faults)))
        else:
            sound[row["qa_id"]] = row
    return list(sound.values())


def _rejection_row(row: Row, reason: str) -> dict[str, str]:
    return {"stage": STAGE, "item": f"{row['task']} {row['qa_id']}", "reason": reason}


def _check_leaks(row: Row, patients: set[str], images: set[str], copies: CopyIndex) -> list[str]:
    leaks = [f"patient {p} is in the benchmark" for p in row["patient_ids"] if p in patients]
    leaks += [f"image {i} is in the benchmark" for i in row["image_ids"] if i in images]
    return leaks + [
        f"image {i} is {'an exact' if relation == EXACT else 'a near'} copy of {other}, which is in the benchmark"
        for i in row["image_ids"]
        for other, relation in sorted(copies.of_training.get(i, {}).items())
        if other in images and other != i
    ]


def _explain_shortage(pool: list[Row], taken: list[Row], n: int) -> str:
    """Why there are fewer than wanted, where it is not for want of questions."""
    missing_count = min(n, len(pool)) - len(taken)
    return f"; {missing_count} more would let the texts alone tell the answer" if missing_count > 0 else ""


def _pool_rows(rows: list[Row], rejected: list[dict[str, str]], copies: CopyIndex) -> defaultdict[tuple[str, str], list[Row]]:
    """Rows by split and set, without those that share a patient or image, or a copy of one, with any benchmark question."""
    benchmark_rows = [r for r in rows if r["split"] == "benchmark"]
    patients = {p for r in benchmark_rows for p in r["patient_ids"]}
    shown_images = {i for r in benchmark_rows for i in r["image_ids"]}
    pools: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        leaks = _check_leaks(row, patients, shown_images, copies) if row["split"] != "benchmark" else []
        if leaks:
            rejected.append(_rejection_row(row, "; ".join(leaks)))
        else:
            pools[row["split"], row["set"]].append(row)
    return pools


def _check_known_sets(wanted: Mapping[str, Mapping[str, int]]) -> None:
    """EmptySetError where questions are wanted of a set that its split does not have."""
    unknown = [f"{split}.{s}" for split, counts in wanted.items() for s in counts if counts[s] and s not in SETS[split]]
    if unknown:
        raise EmptySetError(f"no such set: {', '.join(unknown)}; train has {SETS['train']}, benchmark {SETS['benchmark']}")


def merge_questions(
    rows: Iterable[Row],
    *,
    seed: int,
    train: Mapping[str, int],
    benchmark: Mapping[str, int],
    pretrain: int = 0,
    open_fractions: Mapping[str, float] = MappingProxyType({}),
    images: Collection[str] | None = None,
    copies: CopyIndex | None = None,
) -> MergeResult:
    """Splits of at most so many questions a set (pretrain: half about one image, half text-only).

    Rows that are unsound, repeated, or that share a patient or image with any benchmark question are left out of
    training and listed. `open_fractions`: share of open questions by set; else as many as the set has.
    `images`: all image references there are, where they are to be checked. `copies`: images that are copies of one of the
    benchmark's count as shared. The result does not depend on the order of the rows. Raises EmptySetError where a set is wanted
    and has no question.
    """
    merged = MergeResult()
    ordered = sorted(rows, key=lambda r: (r["split"] != "benchmark", r["split"], r["qa_id"], r["task"]))
    sound = _drop_faulty(ordered, images, merged.rejected)
    pools = _pool_rows(sound, merged.rejected, copies or CopyIndex())
    target_counts = {
        "train": {s: train.get(s, 0) for s in SETS["train"]},
        "benchmark": {s: benchmark.get(s, 0) for s in SETS["benchmark"]},
        "pretrain": {"single": pretrain - pretrain // 2, "text": pretrain // 2},
    }
    _check_known_sets({"train": train, "benchmark": benchmark})
    empty_sets = []
    for split, counts in target_counts.items():
        chosen: list[Row] = []
        for name, n in counts.items():
            pool = pools[split, name]
            if n and not pool:
                sources = " or ".join(list_suppliers(name))
                empty_sets.append(f"{split}.{name}: {n} questions wanted, none found; source {sources} would supply them")
            taken = select_rows(pool, n, seed, even=split == "benchmark", open_fraction=open_fractions.get(name))
            if pool and len(taken) < n:
                merged.short.append(f"{split}.{name}: {len(taken)} of {n} questions" + _explain_shortage(pool, taken, n))
            chosen += taken
        merged.splits[split] = sorted(chosen, key=lambda r: (SETS[split].index(r["set"]), r["task"], r["qa_id"]))
    if empty_sets:
        raise EmptySetError("\n".join([*empty_sets, "Add the source, or set the count to 0."]))
    return merged

"""Evenness: how often each place, letter and gold is right, so that neither position nor frequency tells an answer."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

MARGIN = 0.01
"""How far beyond its fair share a gold may be right, on top of 1 / sqrt(n), two standard errors of an even coin."""


def assign_places(uniform: Sequence[float], n: int) -> list[int]:
    """One of n places for each item: floor(u·n), and as few items moved as makes all places equally often used.

    Counts differ by at most 1. Items that barely fell into an overfull place move first.
    """
    scaled = [u * n for u in uniform]
    place = [min(int(s), n - 1) for s in scaled]
    count = Counter(place)
    extra = len(place) % n
    larger = sorted(range(n), key=lambda p: (-count[p], p))[:extra]
    free_slots = {p: len(place) // n + (p in larger) - count[p] for p in range(n)}
    for i in sorted(range(len(place)), key=lambda i: (place[i] - scaled[i], i)):
        if free_slots[place[i]] < 0:
            target = max(free_slots, key=lambda p: (free_slots[p], -p))
            free_slots[place[i]] += 1
            free_slots[target] -= 1
            place[i] = target
    return place


def find_cap(counts: Sequence[int], share: float) -> int:
    """The largest L such that, with each count cut to L, none is more than `share` of the sum. share·len ≥ 1."""
    low, high = 0, max(counts, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if middle <= share * sum(min(c, middle) for c in counts) + 1e-9:
            low = middle
        else:
            high = middle - 1
    return low


def select_fair(golds: Sequence[Hashable], choice_count: int) -> list[bool]:
    """Which items to keep, the first ones of each gold, so that none of `choice_count` possible golds is right too often.

    Too often: more than 1 / ways, by more than chance alone would make it among so many.
    """
    if not golds:
        return []
    cap = find_cap([*Counter(golds).values()], min(1.0, 1 / choice_count + MARGIN + 1 / math.sqrt(len(golds))))
    taken: Counter[Hashable] = Counter()
    is_kept = []
    for gold in golds:
        taken[gold] += 1
        is_kept.append(taken[gold] <= cap)
    return is_kept


def allocate_evenly(available: Mapping[K, int], n: int) -> dict[K, int]:
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

"""Evenness: how often each place, letter and gold is right, so that neither position nor frequency tells an answer."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

SPREAD, ASKED_SPREAD = 0.5, 1.5
"""Standard deviations of chance by which a clue may be right more often than guessing makes it: one of the options alone,
and one of a word asked, of which there are so many that some are right often by chance."""
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


WORD_PATTERN = re.compile(r"\w+")
Clue = tuple[object, ...]


@dataclass(frozen=True)
class ClosedText:
    """The text of a closed question: what is asked, its options, the gold's place and how many images are shown."""

    question: str
    options: tuple[str, ...]
    gold: int
    image_count: int


def _split_words(text: str) -> list[str]:
    return WORD_PATTERN.findall(text.lower())


def _rank_values(values: Sequence[int]) -> list[int]:
    """How many values are smaller, of each."""
    return [sum(other < value for other in values) for value in values]


def _list_option_clues(text: ClosedText) -> list[list[Clue]]:
    """Clues of each option that hold whatever is asked: its place, its text, its words, and how it compares with the others.

    Comparisons name no word: is it the longest, does it say the same twice (as "left myopia, right myopia"), does it
    share most with the others. They tell of options that are composed of parts, each set of which is seldom seen again.
    """
    words = [_split_words(option) for option in text.options]
    counts = [Counter(own) for own in words]
    comparisons = {
        "length": _rank_values([len(option) for option in text.options]),
        "repeats": _rank_values([sum(n - 1 for n in own.values()) for own in counts]),
        "shared": _rank_values([sum((own & other).total() for other in counts) for own in counts]),
    }
    size = len(text.options)
    return [
        [
            ("place", size, place),
            ("images", text.image_count, "place", size, place),
            *((name, tuple(sorted(ranks)), ranks[place]) for name, ranks in comparisons.items() if len(set(ranks)) > 1),
            ("text", text.options[place]),
            ("images", text.image_count, "text", text.options[place]),
            *(("word", w) for w in counts[place]),
            *(("words", *pair) for pair in dict.fromkeys(pairwise(words[place]))),
        ]
        for place in range(size)
    ]


class _ClueLedger:
    """How often each clue was right among the questions taken, beside how often it should have been."""

    def __init__(self) -> None:
        self._expected: defaultdict[Clue, float] = defaultdict(float)
        self._right: Counter[Clue] = Counter()

    @staticmethod
    def _list_clues(text: ClosedText) -> list[list[Clue]]:
        """Clues of each option, those of each word asked with its place and its text among them."""
        asked = dict.fromkeys(_split_words(text.question))
        size = len(text.options)
        return [
            [*clues, *(("asked", w, size, place) for w in asked), *(("asked", w, text.options[place]) for w in asked)]
            for place, clues in enumerate(_list_option_clues(text))
        ]

    def take_if_even(self, text: ClosedText) -> bool:
        """Count a question in, unless a clue of its gold would then be right too often."""
        clues = self._list_clues(text)
        share = 1 / len(clues)
        offered: Counter[Clue] = Counter()
        for own in clues:
            offered.update(own)
        for clue in clues[text.gold]:
            expected = self._expected.get(clue, 0.0) + share * offered[clue]
            if self._right[clue] > expected + (ASKED_SPREAD if clue[0] == "asked" else SPREAD) * math.sqrt(expected):
                return False
        for clue, count in offered.items():
            self._expected[clue] += share * count
        self._right.update(clues[text.gold])
        return True


def select_even(texts: Sequence[ClosedText], most: int) -> list[int]:
    """Places of up to `most` questions, the first that keep every clue of their texts as often right as guessing would.

    A clue is what an answer can be guessed by: a place, a text, a part of it, a word asked together with it, the longest
    option, the one that is most like the others. It is right too often where its count exceeds what guessing among the
    options gives by more than 1 and SPREAD standard deviations. What is not even yet waits until other questions make it so:
    however many of the first are used, they are even.
    """
    return list(_iter_even(texts, most))


def _iter_even(texts: Sequence[ClosedText], most: int) -> Iterator[int]:
    ledger, waiting, taken_count = _ClueLedger(), list(range(len(texts))), 0
    while waiting:
        left = []
        for place in waiting:
            if taken_count < most and ledger.take_if_even(texts[place]):
                taken_count += 1
                yield place
            else:
                left.append(place)
        if len(left) == len(waiting) or taken_count >= most:
            return
        waiting = left

"""Figures of question sets that can be set beside each other, ours beside the release's: form, length, variety, guessing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean, median
from typing import Any

from medmim.benchmarks.quality.faults import Entry
from medmim.benchmarks.quality.text_only import TextOnly, words
from medmim.benchmarks.released.records import ReleaseError, slot
from medmim.questions.prompt import LETTERS

Row = dict[str, Any]
NGRAMS = (1, 2, 3)


def called(name: str) -> str:
    """The set of a benchmark or training file by its name, where that says it; else the name."""
    try:
        return slot(name).set
    except ReleaseError:
        return name


def _shares(statistic: str, found: Iterable[object]) -> Iterator[tuple[str, str, float, int]]:
    counts = Counter(map(str, found))
    n = sum(counts.values())
    yield from ((statistic, key, counts[key] / n, n) for key in sorted(counts))


def _figures(entries: Sequence[Entry], told: TextOnly | None) -> Iterator[tuple[str, str, float, int]]:
    """(statistic, key, value, n) of one set."""
    kinds = {"closed": [e for e in entries if e.closed], "open": [e for e in entries if not e.closed]}
    yield from (("questions", kind, len(of), len(entries)) for kind, of in kinds.items())
    yield from _shares("images", (len(e.images) for e in entries))
    yield from _shares("options", (len(e.options) for e in kinds["closed"] if e.options))
    yield from _shares("letters", (LETTERS[e.gold] for e in kinds["closed"] if e.gold is not None))
    for kind, of in kinds.items():
        if lengths := [len(words(e.answer)) for e in of]:
            summary = {"mean": mean(lengths), "median": median(lengths), "longest": max(lengths)}
            yield from (("answer_words", f"{kind} {name}", value, len(of)) for name, value in summary.items())
    yield "wordings", "", len({e.asked for e in entries}), len(entries)
    texts = Counter(e.asked for e in entries)
    split = [(words(text), count) for text, count in texts.items()]
    for n in NGRAMS:
        distinct = {gram for text, _ in split for gram in zip(*(text[i:] for i in range(n)), strict=False)}
        yield "ngrams", str(n), len(distinct), sum(max(0, len(text) + 1 - n) * count for text, count in split)
    for name, value in told.figures().items() if told else ():
        if value is not None:
            yield "guess", name, value, told.n if told else 0


def statistics(
    origin: str, split: str, sets: Mapping[str, Sequence[Entry]], told: Mapping[str, TextOnly] | None = None
) -> list[Row]:
    """Rows of the statistics table of one origin's sets; `told`: what their texts tell, by the same names."""
    return [
        {"origin": origin, "split": split, "set": called(name), "statistic": what, "key": key, "value": float(value), "n": n}
        for name, entries in sets.items()
        for what, key, value, n in _figures(entries, (told or {}).get(name))
    ]

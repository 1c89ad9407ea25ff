"""Figures of question sets that can be set beside each other, ours beside the release's: form, length, variety, guessing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean, median
from typing import Any

from medmim.benchmarks.quality.faults import Entry
from medmim.benchmarks.quality.text_only import TextOnlyScores, split_words
from medmim.benchmarks.released.records import ReleaseError, slot_from_name
from medmim.questions.prompt import LETTERS

Row = dict[str, Any]
NGRAMS = (1, 2, 3)


def infer_set_name(name: str) -> str:
    """The set of a benchmark or training file by its name, where that says it; else the name."""
    try:
        return slot_from_name(name).set
    except ReleaseError:
        return name


def _share_rows(statistic: str, values: Iterable[object]) -> Iterator[tuple[str, str, float, int]]:
    counts = Counter(map(str, values))
    n = sum(counts.values())
    yield from ((statistic, key, counts[key] / n, n) for key in sorted(counts))


Figure = tuple[str, str, float, int]
"""Statistic, key, value, number of questions."""


def _answer_lengths(kinds: Mapping[str, Sequence[Entry]]) -> Iterator[Figure]:
    for kind, entries in kinds.items():
        if lengths := [len(split_words(e.answer)) for e in entries]:
            summary = {"mean": mean(lengths), "median": median(lengths), "longest": max(lengths)}
            yield from (("answer_words", f"{kind} {name}", value, len(entries)) for name, value in summary.items())


def _count_distinct_ngrams(entries: Sequence[Entry]) -> Iterator[Figure]:
    texts = Counter(e.question_text for e in entries)
    split_texts = [(split_words(text), count) for text, count in texts.items()]
    for n in NGRAMS:
        distinct = {gram for text, _ in split_texts for gram in zip(*(text[i:] for i in range(n)), strict=False)}
        yield "ngrams", str(n), len(distinct), sum(max(0, len(text) + 1 - n) * count for text, count in split_texts)


def _set_statistics(entries: Sequence[Entry], text_scores: TextOnlyScores | None, faults: Mapping[str, int]) -> Iterator[Figure]:
    """(statistic, key, value, n) of one set."""
    kinds = {"closed": [e for e in entries if e.closed], "open": [e for e in entries if not e.closed]}
    yield from (("questions", kind, len(of), len(entries)) for kind, of in kinds.items())
    yield from _share_rows("images", (len(e.images) for e in entries))
    yield from _share_rows("options", (len(e.options) for e in kinds["closed"] if e.options))
    yield from _share_rows("letters", (LETTERS[e.gold] for e in kinds["closed"] if e.gold is not None))
    yield from _answer_lengths(kinds)
    yield "wordings", "", len({e.question_text for e in entries}), len(entries)
    yield from _count_distinct_ngrams(entries)
    yield from (("fault", fault, count, len(entries)) for fault, count in faults.items())
    if text_scores:
        figures = text_scores.compute_figures()
        yield from (("guess", name, value, text_scores.n) for name, value in figures.items() if value is not None)
        for task, scores in text_scores.tasks.items():
            figures = scores.compute_figures()
            yield from (("guess_task", f"{name} {task}", value, scores.n) for name, value in figures.items() if value is not None)


def compute_statistics(
    origin: str,
    split: str,
    sets: Mapping[str, Sequence[Entry]],
    text_scores: Mapping[str, TextOnlyScores] | None = None,
    faults: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Row]:
    """Rows of the statistics table of one origin's sets.

    `text_scores`: what can be guessed of each, `faults`: how many questions have each fault, by the same names.
    """
    return [
        {
            "origin": origin,
            "split": split,
            "set": infer_set_name(name),
            "statistic": what,
            "key": key,
            "value": float(value),
            "n": n,
        }
        for name, entries in sets.items()
        for what, key, value, n in _set_statistics(entries, (text_scores or {}).get(name), (faults or {}).get(name, {}))
    ]

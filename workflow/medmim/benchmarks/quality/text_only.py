"""What the texts alone tell: a classifier that sees no image, beside the best answer that never changes.

It scores every option of a question by hashed features of the pair (the option's words, the words of the question with
it, the other options, its place, its length) by logistic regression, and takes the best. Where it is right more often
than a constant answer, something in the words gives the answer away.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from medmim.benchmarks.quality.faults import Entry

if TYPE_CHECKING:
    import scipy.sparse

FEATURES = 2**18
FOLDS = 5
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TextOnly:
    """Shares of right answers on one set, of the `n` closed questions whose gold is one of at least two options.

    constant: the better of always the same letter, and always the same text where it is an option, else a letter; both
    chosen knowing the golds. trained: the classifier taught by the training questions; None where those have none
    closed. within: taught by four fifths of the set, tested on the rest, each in turn; None with less than two questions.
    """

    n: int
    constant: float | None
    trained: float | None
    within: float | None

    def figures(self) -> dict[str, Any]:
        """As the audit's JSON gives them."""
        return {"constant": self.constant, "text_only": self.trained, "text_only_within": self.within}


def words(text: str) -> list[str]:
    """Words of a text, in small letters."""
    return WORD.findall(text.lower())


def _grams(text: str) -> list[str]:
    """Distinct words and pairs of words, in order."""
    found = words(text)
    return list(dict.fromkeys([*found, *map(" ".join, pairwise(found))]))


def _pairs(question: Entry) -> Iterator[list[str]]:
    """Features of each option of a question."""
    grams, lengths = _grams(question.asked), [len(o) for o in question.options]
    told, count = set(words(question.asked)), len(question.options)
    for place, option in enumerate(question.options):
        own = option.lower()
        rank = sum(n < lengths[place] for n in lengths)
        yield [
            f"place {place} of {count}",
            f"text {own}",
            f"text {own} at {place}",
            f"rank {rank} of {count}",
            f"repeats {sum(w in told for w in words(option))}",
            *(f"has {g}" for g in _grams(option)),
            *(f"beside {own}|{other.lower()}" for i, other in enumerate(question.options) if i != place),
            *(f"asked {g}|{own}" for g in grams),
            *(f"asked {g} at {place}" for g in grams),
        ]


def _hashed(questions: Sequence[Entry]) -> "scipy.sparse.csr_matrix":
    """A row for each option of each question in turn."""
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(FEATURES, input_type="string").transform(pair for q in questions for pair in _pairs(q))


def usable(questions: Sequence[Entry]) -> list[Entry]:
    """Those whose gold is one of at least two options."""
    return [q for q in questions if q.gold is not None and len(q.options) > 1]


class Classifier:
    """Logistic regression over options; the same questions in the same order give the same classifier."""

    def __init__(self, questions: Sequence[Entry]) -> None:
        """Of usable questions, at least one."""
        from sklearn.linear_model import LogisticRegression

        # liblinear runs in one thread, in one order: sums come out the same on every machine
        self._model = LogisticRegression(solver="liblinear", random_state=0, max_iter=50)
        self._model.fit(_hashed(questions), [place == q.gold for q in questions for place in range(len(q.options))])

    def right(self, questions: Sequence[Entry]) -> list[bool]:
        """Whether the option with the highest score, the first of equals, is the gold, of each usable question."""
        scores = self._model.decision_function(_hashed(questions)).tolist() if questions else []
        found, start = [], 0
        for q in questions:
            own = scores[start : start + len(q.options)]
            found.append(own.index(max(own)) == q.gold)
            start += len(q.options)
        return found


def _constant(questions: Sequence[Entry]) -> float:
    letters = Counter(q.gold for q in questions)
    best = max(letters.values())
    for text in {q.options[q.gold] for q in questions if q.gold is not None}:
        elsewhere = Counter(q.gold for q in questions if text not in q.options)
        named = sum(q.gold is not None and q.options[q.gold] == text for q in questions)
        best = max(best, named + max(elsewhere.values(), default=0))
    return best / len(questions)


def _within(questions: Sequence[Entry]) -> float | None:
    """By a hash of the content, so that an exact repeat is not in another fold."""
    fold = [hashlib.sha256(repr(q.content).encode()).digest()[0] % FOLDS for q in questions]
    if len(set(fold)) < 2:
        return None
    right = 0
    for part in sorted(set(fold)):
        taught = Classifier([q for q, f in zip(questions, fold, strict=True) if f != part])
        right += sum(taught.right([q for q, f in zip(questions, fold, strict=True) if f == part]))
    return right / len(questions)


def text_only(training: Sequence[Entry], sets: Mapping[str, Sequence[Entry]]) -> dict[str, TextOnly]:
    """What the texts of each set tell, by name; the classifier is taught by all training questions together."""
    closed = usable(training)
    taught = Classifier(closed) if closed else None
    told = {}
    for name, questions in sets.items():
        found = usable(questions)
        trained = sum(taught.right(found)) / len(found) if found and taught else None
        told[name] = TextOnly(len(found), _constant(found) if found else None, trained, _within(found))
    return told

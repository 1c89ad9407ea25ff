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

FEATURE_COUNT = 2**18
FOLD_COUNT = 5
WORD_PATTERN = re.compile(r"\w+")


@dataclass(frozen=True)
class TextOnlyScores:
    """Shares of right answers on one set, of the `n` closed questions whose gold is one of at least two options.

    constant: the better of always the same letter, and always the same text where it is an option, else a letter; both
    chosen knowing the golds. trained: the classifier taught by the training questions; None where those have none
    closed. within: taught by four fifths of the set, tested on the rest, each in turn; None with less than two questions.
    """

    n: int
    constant: float | None
    trained: float | None
    within: float | None

    def compute_figures(self) -> dict[str, Any]:
        """As the audit's JSON gives them."""
        return {"constant": self.constant, "text_only": self.trained, "text_only_within": self.within}


def split_words(text: str) -> list[str]:
    """Words of a text, in small letters."""
    return WORD_PATTERN.findall(text.lower())


def _unique_ngrams(text: str) -> list[str]:
    """Distinct words and pairs of words, in order."""
    unigrams = split_words(text)
    return list(dict.fromkeys([*unigrams, *map(" ".join, pairwise(unigrams))]))


def _option_features(question: Entry) -> Iterator[list[str]]:
    """Features of each option of a question."""
    grams, lengths = _unique_ngrams(question.question_text), [len(o) for o in question.options]
    question_words, count = set(split_words(question.question_text)), len(question.options)
    for place, option in enumerate(question.options):
        own = option.lower()
        rank = sum(n < lengths[place] for n in lengths)
        yield [
            f"place {place} of {count}",
            f"text {own}",
            f"text {own} at {place}",
            f"rank {rank} of {count}",
            f"repeats {sum(w in question_words for w in split_words(option))}",
            *(f"has {g}" for g in _unique_ngrams(option)),
            *(f"beside {own}|{other.lower()}" for i, other in enumerate(question.options) if i != place),
            *(f"asked {g}|{own}" for g in grams),
            *(f"asked {g} at {place}" for g in grams),
        ]


def _hash_features(questions: Sequence[Entry]) -> "scipy.sparse.csr_matrix":
    """A row for each option of each question in turn."""
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(FEATURE_COUNT, input_type="string").transform(pair for q in questions for pair in _option_features(q))


def select_usable(questions: Sequence[Entry]) -> list[Entry]:
    """Those whose gold is one of at least two options."""
    return [q for q in questions if q.gold is not None and len(q.options) > 1]


class TextOnlyClassifier:
    """Logistic regression over options; the same questions in the same order give the same classifier."""

    def __init__(self, questions: Sequence[Entry]) -> None:
        """Of usable questions, at least one."""
        from sklearn.linear_model import LogisticRegression

        # liblinear runs in one thread, in one order: sums come out the same on every machine
        self._model = LogisticRegression(solver="liblinear", random_state=0, max_iter=50)
        self._model.fit(_hash_features(questions), [place == q.gold for q in questions for place in range(len(q.options))])

    def predict_correct(self, questions: Sequence[Entry]) -> list[bool]:
        """Whether the option with the highest score, the first of equals, is the gold, of each usable question."""
        scores = self._model.decision_function(_hash_features(questions)).tolist() if questions else []
        is_correct, start = [], 0
        for q in questions:
            own = scores[start : start + len(q.options)]
            is_correct.append(own.index(max(own)) == q.gold)
            start += len(q.options)
        return is_correct


def _constant_accuracy(questions: Sequence[Entry]) -> float:
    letters = Counter(q.gold for q in questions)
    best = max(letters.values())
    for text in {q.options[q.gold] for q in questions if q.gold is not None}:
        elsewhere = Counter(q.gold for q in questions if text not in q.options)
        named = sum(q.gold is not None and q.options[q.gold] == text for q in questions)
        best = max(best, named + max(elsewhere.values(), default=0))
    return best / len(questions)


def _cross_validate(questions: Sequence[Entry]) -> float | None:
    """By a hash of the content, so that an exact repeat is not in another fold."""
    fold = [hashlib.sha256(repr(q.content).encode()).digest()[0] % FOLD_COUNT for q in questions]
    if len(set(fold)) < 2:
        return None
    correct_count = 0
    for held_fold in sorted(set(fold)):
        classifier = TextOnlyClassifier([q for q, f in zip(questions, fold, strict=True) if f != held_fold])
        correct_count += sum(classifier.predict_correct([q for q, f in zip(questions, fold, strict=True) if f == held_fold]))
    return correct_count / len(questions)


def score_text_only(training: Sequence[Entry], sets: Mapping[str, Sequence[Entry]]) -> dict[str, TextOnlyScores]:
    """What the texts of each set tell, by name; the classifier is taught by all training questions together."""
    closed = select_usable(training)
    classifier = TextOnlyClassifier(closed) if closed else None
    scores = {}
    for name, questions in sets.items():
        answerable = select_usable(questions)
        trained = sum(classifier.predict_correct(answerable)) / len(answerable) if answerable and classifier else None
        scores[name] = TextOnlyScores(
            len(answerable), _constant_accuracy(answerable) if answerable else None, trained, _cross_validate(answerable)
        )
    return scores

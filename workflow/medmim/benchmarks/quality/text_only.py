"""What can be guessed without looking: classifiers that see no picture, beside the best answer that never changes.

One sees the words: it scores every option of a question by hashed features of the pair (the option's words, the words of
the question with it, the other options, its place, its length, how much it has in common with the others) by logistic
regression, and takes the best. The other sees metadata instead: how many pictures there are, how large and how bright
each is, and which of them an option names. Where one is right more often than a constant answer, something other than
what the pictures show gives the answer away.
"""

import hashlib
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from medmim.benchmarks.quality.faults import Entry

if TYPE_CHECKING:
    import scipy.sparse

FEATURE_COUNT = 2**18
FOLD_COUNT = 5
MIN_TASK_QUESTIONS = 40
"""Closed questions from which the figures of one task within a set are given."""
LEVELS = 5
"""Equally frequent levels into which a number about pictures is cut."""
WORD_PATTERN = re.compile(r"\w+")
NAMED_IMAGES = {"image 1": 0, "image 2": 1, "image 3": 2, "image 4": 3} | {
    f"{nth} image": place for place, nth in enumerate(("first", "second", "third", "fourth"))
}
"""Words by which an option names one of the pictures, by its place."""


@dataclass(frozen=True)
class Picture:
    """Size in pixels, and mean, standard deviation, 10th and 90th percentile of the brightness, 0 to 255."""

    width: int
    height: int
    mean: float
    deviation: float
    dark: float
    bright: float

    def list_statistics(self) -> dict[str, float]:
        """By name, the shape among them."""
        return {f.name: float(getattr(self, f.name)) for f in fields(self)} | {"aspect": self.width / self.height}


@dataclass(frozen=True)
class TextOnlyScores:
    """Shares of right answers on one set, of the `n` closed questions whose gold is one of at least two options.

    constant: the better of always the same letter, and always the same text where it is an option, else a letter; both
    chosen knowing the golds. trained: the classifier of the words taught by the training questions; None where those have
    none closed. within: the same taught by four fifths of the set, tested on the rest, each in turn; None with less than
    two questions. metadata: the classifier of the pictures' metadata, tested in the same way; None without pictures.
    tasks: the same figures but `trained` of each task that has MIN_TASK_QUESTIONS, where there are several.
    """

    n: int
    constant: float | None
    trained: float | None
    within: float | None
    metadata: float | None = None
    tasks: Mapping[str, "TextOnlyScores"] = field(default_factory=dict)

    def compute_figures(self) -> dict[str, Any]:
        """As the audit's JSON gives them."""
        return {
            "constant": self.constant,
            "text_only": self.trained,
            "text_only_within": self.within,
            "metadata_only_within": self.metadata,
        }


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
    words = [Counter(split_words(o)) for o in question.options]
    repeats = [sum(n - 1 for n in own.values()) for own in words]
    shared = [sum((own & other).total() for other in words) for own in words]
    for place, option in enumerate(question.options):
        own = option.lower()
        rank = sum(n < lengths[place] for n in lengths)
        yield [
            f"place {place} of {count}",
            f"text {own}",
            f"text {own} at {place}",
            f"rank {rank} of {count}",
            f"repeats {sum(w in question_words for w in split_words(option))}",
            f"said twice {sum(n < repeats[place] for n in repeats)} {sum(n > repeats[place] for n in repeats)} of {count}",
            f"in common {sum(n < shared[place] for n in shared)} {sum(n > shared[place] for n in shared)} of {count}",
            *(f"has {g}" for g in _unique_ngrams(option)),
            *(f"beside {own}|{other.lower()}" for i, other in enumerate(question.options) if i != place),
            *(f"asked {g}|{own}" for g in grams),
            *(f"asked {g} at {place}" for g in grams),
        ]


def _measure_changes(pictures: Sequence[Picture]) -> Iterator[tuple[str, float]]:
    """Numbers about the pictures of one question: the statistics of each, and the difference to the one before."""
    statistics = [p.list_statistics() for p in pictures]
    for place, values in enumerate(statistics):
        yield from ((f"{name} of {place}", value) for name, value in values.items())
    for place, (before, after) in enumerate(pairwise(statistics)):
        yield from ((f"change of {name} after {place}", after[name] - before[name]) for name in before)


class _MetadataFeatures:
    """Features of each option from the pictures' metadata, numbers cut into levels that are equally frequent in a set."""

    def __init__(self, questions: Sequence[Entry], pictures: Mapping[str, Picture]) -> None:
        self._pictures = pictures
        values: defaultdict[str, list[float]] = defaultdict(list)
        for question in questions:
            for name, value in _measure_changes(self._find_pictures(question)):
                values[name].append(value)
        self._bounds = {
            name: [ordered[len(ordered) * level // LEVELS] for level in range(1, LEVELS)]
            for name, ordered in ((name, sorted(own)) for name, own in values.items())
        }

    def _find_pictures(self, question: Entry) -> list[Picture]:
        return [self._pictures[i] for i in question.images if i in self._pictures]

    def __call__(self, question: Entry) -> Iterator[list[str]]:
        """Features of each option of a question."""
        pictures, count = self._find_pictures(question), len(question.options)
        statistics = [p.list_statistics() for p in pictures]
        levels = [f"{name} {bisect_right(self._bounds[name], value)}" for name, value in _measure_changes(pictures)]
        words = split_words(question.question_text)
        for place, option in enumerate(question.options):
            own = option.lower()
            named = NAMED_IMAGES.get(own.removeprefix("the "))
            ranks = []
            if named is not None and named < len(statistics):
                for name, value in statistics[named].items():
                    ranks.append(f"named {name} {sum(other[name] < value for other in statistics)} of {len(statistics)}")
            yield [
                f"place {place} of {count}",
                f"text {own}",
                f"{len(question.images)} images|{own}",
                f"{len(question.images)} images at {place}",
                *(f"{level}|{own}" for level in levels),
                *ranks,
                *(f"{rank}|{w}" for rank in ranks for w in dict.fromkeys(words)),
            ]


Featurizer = Callable[[Entry], Iterator[list[str]]]


def _hash_features(questions: Sequence[Entry], featurize: Featurizer) -> "scipy.sparse.csr_matrix":
    """A row for each option of each question in turn."""
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(FEATURE_COUNT, input_type="string").transform(pair for q in questions for pair in featurize(q))


def select_usable(questions: Sequence[Entry]) -> list[Entry]:
    """Those whose gold is one of at least two options."""
    return [q for q in questions if q.gold is not None and len(q.options) > 1]


class OptionClassifier:
    """Logistic regression over options; the same questions in the same order give the same classifier."""

    def __init__(self, questions: Sequence[Entry], featurize: Featurizer = _option_features) -> None:
        """Of usable questions, at least one."""
        from sklearn.linear_model import LogisticRegression

        # liblinear runs in one thread, in one order: sums come out the same on every machine
        self._model = LogisticRegression(solver="liblinear", random_state=0, max_iter=50)
        self._featurize = featurize
        self._model.fit(
            _hash_features(questions, featurize), [place == q.gold for q in questions for place in range(len(q.options))]
        )

    def predict_correct(self, questions: Sequence[Entry]) -> list[bool]:
        """Whether the option with the highest score, the first of equals, is the gold, of each usable question."""
        scores = self._model.decision_function(_hash_features(questions, self._featurize)).tolist() if questions else []
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


def _cross_validate(questions: Sequence[Entry], featurize: Featurizer) -> float | None:
    """By a hash of the content, so that an exact repeat is not in another fold."""
    fold = [hashlib.sha256(repr(q.content).encode()).digest()[0] % FOLD_COUNT for q in questions]
    if len(set(fold)) < 2:
        return None
    correct_count = 0
    for held_fold in sorted(set(fold)):
        classifier = OptionClassifier([q for q, f in zip(questions, fold, strict=True) if f != held_fold], featurize)
        correct_count += sum(classifier.predict_correct([q for q, f in zip(questions, fold, strict=True) if f == held_fold]))
    return correct_count / len(questions)


def _score_within(questions: Sequence[Entry], pictures: Mapping[str, Picture]) -> TextOnlyScores:
    """The figures for which no training question is needed, of usable questions."""
    if not questions:
        return TextOnlyScores(0, None, None, None)
    has_pictures = any(i in pictures for q in questions for i in q.images)
    return TextOnlyScores(
        n=len(questions),
        constant=_constant_accuracy(questions),
        trained=None,
        within=_cross_validate(questions, _option_features),
        metadata=_cross_validate(questions, _MetadataFeatures(questions, pictures)) if has_pictures else None,
    )


def _group_tasks(questions: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Questions of each task that has enough; empty where all are of one task."""
    tasks: defaultdict[str, list[Entry]] = defaultdict(list)
    for question in questions:
        tasks[question.task].append(question)
    return {t: tasks[t] for t in sorted(tasks) if len(tasks[t]) >= MIN_TASK_QUESTIONS} if len(tasks) > 1 else {}


def score_text_only(
    training: Sequence[Entry], sets: Mapping[str, Sequence[Entry]], pictures: Mapping[str, Picture] | None = None
) -> dict[str, TextOnlyScores]:
    """What can be guessed of each set without looking, by name.

    The classifier of the words is taught by all training questions together. `pictures`: metadata by image, of those of
    the sets; without it only the words are tried.
    """
    closed = select_usable(training)
    classifier = OptionClassifier(closed) if closed else None
    scores = {}
    for name, questions in sets.items():
        answerable = select_usable(questions)
        trained = sum(classifier.predict_correct(answerable)) / len(answerable) if answerable and classifier else None
        tasks = {task: _score_within(own, pictures or {}) for task, own in _group_tasks(answerable).items()}
        scores[name] = replace(_score_within(answerable, pictures or {}), trained=trained, tasks=tasks)
    return scores

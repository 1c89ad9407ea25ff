"""Scores of free-text answers against one gold text, each named: none is "the" open-ended metric.

A metric is one function here under `open_metric`: scores, tables, reports and exports take it from OPEN_METRICS. The module is
written beside the tasks for lmms-eval too, so it imports nothing of this project.

Normalisation for the first three is SQuAD's: lower case, no punctuation, no articles, single spaces (on NFKC text).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.helpers import extract_all_word_ngrams

_BLEU = BLEU(effective_order=True)


@dataclass(frozen=True)
class OpenMetric:
    """A metric of open answers."""

    label: str
    """Name for people."""
    description: str
    """What it measures."""
    lowest: float
    highest: float
    score: Callable[[str, str], float]
    """Of a reply and the gold text."""


OPEN_METRICS: dict[str, OpenMetric] = {}
"""Every metric by name, in the order of the tables."""


def open_metric(
    label: str, description: str, *, lowest: float = 0.0, highest: float = 1.0
) -> Callable[[Callable[[str, str], float]], Callable[[str, str], float]]:
    """Register a function score_NAME(reply, gold) as the metric NAME.

    Reports show scores in percent, so that a range is a share: from 0, or -1, to 1.
    """
    if not -1 <= lowest < highest <= 1:
        raise ValueError(
            f"metric {label}: its range is {lowest:g} to {highest:g}; divide its scores so that they are shares of 1"
        )

    def register(score: Callable[[str, str], float]) -> Callable[[str, str], float]:
        OPEN_METRICS[score.__name__.removeprefix("score_")] = OpenMetric(label, description, lowest, highest, score)
        return score

    return register


def tokenize_answer(text: str) -> list[str]:
    """Normalised tokens of a text; articles stay where nothing else would be left."""
    words = re.sub(r"[^\w\s]|_", " ", unicodedata.normalize("NFKC", text).casefold()).split()
    return [w for w in words if w not in ("a", "an", "the")] or words


@lru_cache(maxsize=1 << 14)
def compute_overlap(reply: str, gold: str) -> tuple[float, float, float]:
    """Token precision, recall and F1 with multiset counts. Two texts without tokens agree; one without has 0."""
    ours, theirs = Counter(tokenize_answer(reply)), Counter(tokenize_answer(gold))
    if not ours or not theirs:
        same = float(ours == theirs)
        return same, same, same
    common = (ours & theirs).total()
    precision, recall = common / ours.total(), common / theirs.total()
    return precision, recall, 2 * common / (ours.total() + theirs.total())


@lru_cache(maxsize=1 << 14)
def _count_ngrams(text: str) -> tuple[Counter[tuple[str, ...]], int]:
    """N-grams of 1 to 4 tokens as sacrebleu's BLEU takes them, and the number of tokens."""
    ngrams: tuple[Counter[tuple[str, ...]], int] = extract_all_word_ngrams(_BLEU.tokenizer(text.rstrip()), 1, 4)
    return ngrams


@open_metric("exact match", "1 where the normalised texts are equal")
def score_exact_match(reply: str, gold: str) -> float:
    """Score 1 where the normalised texts are equal, else 0."""
    return float(tokenize_answer(reply) == tokenize_answer(gold))


@open_metric("token recall", "share of the gold's tokens that the reply has; a repeated token counts as often as it occurs")
def score_token_recall(reply: str, gold: str) -> float:
    """Score the share of the gold's tokens that the reply has."""
    return compute_overlap(reply, gold)[1]


@open_metric("token F1", "harmonic mean of token recall and of the share of the reply's tokens that the gold has")
def score_token_f1(reply: str, gold: str) -> float:
    """Score the harmonic mean of token precision and recall."""
    return compute_overlap(reply, gold)[2]


@open_metric("BLEU", "sacrebleu's sentence BLEU: BLEU-4, 13a tokens, cased, effective order, exponential smoothing")
def score_bleu(reply: str, gold: str) -> float:
    """What sacrebleu's `sentence_score` gives, of 1 rather than 100; a gold's n-grams are counted once for all replies."""
    (reply_ngrams, reply_length), (gold_ngrams, gold_length) = _count_ngrams(reply), _count_ngrams(gold)
    correct, total = [0] * 4, [0] * 4
    for ngram, count in reply_ngrams.items():
        total[len(ngram) - 1] += count
        correct[len(ngram) - 1] += min(count, gold_ngrams.get(ngram, 0))
    score = BLEU.compute_bleu(correct, total, reply_length, gold_length, smooth_method="exp", effective_order=True).score
    return float(min(score / 100, 1.0))


@open_metric("ROUGE-L", "F-measure of the longest common subsequence (Lin 2004) as rouge-score has it, without stemming")
def score_rouge_l(reply: str, gold: str) -> float:
    """F-measure of the longest common subsequence of the tokens, which are runs of a to z and digits."""
    # The package rouge-score would import scikit-learn, so it is not used; the tests compare with it.
    reply_tokens, gold_tokens = (re.findall("[a-z0-9]+", text.lower()) for text in (reply, gold))
    if not reply_tokens or not gold_tokens:
        return 0.0
    token_bits: dict[str, int] = {}
    for place, token in enumerate(reply_tokens):
        token_bits[token] = token_bits.get(token, 0) | 1 << place
    rest = all_bits = (
        1 << len(reply_tokens)
    ) - 1  # bits still set at the end: tokens that are not in the common subsequence (Hyyrö 2004)
    for token in gold_tokens:
        matches = rest & token_bits.get(token, 0)
        rest = (rest + matches | rest - matches) & all_bits
    common = len(reply_tokens) - rest.bit_count()
    return 2 * common / (len(reply_tokens) + len(gold_tokens))


@lru_cache(maxsize=1 << 14)
def score_open_answer(reply: str, gold: str) -> dict[str, float]:
    """Score a reply by every open metric. Raises ValueError where a score is outside its metric's range."""
    scores = {}
    for name, metric in OPEN_METRICS.items():
        scores[name] = value = metric.score(reply, gold)
        if not metric.lowest <= value <= metric.highest:
            raise ValueError(f"metric {name} scores {value:g}, outside its range {metric.lowest:g} to {metric.highest:g}")
    return scores

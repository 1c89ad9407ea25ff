"""Scores of free-text answers against one gold text, each between 0 and 1 and each named: none is "the" open-ended metric.

exact_match   1 if the normalised texts are equal
token_recall  share of the gold's tokens that the reply has, tokens counted as often as they occur (a repeated word earns once)
token_f1      harmonic mean of that and of the share of the reply's tokens that the gold has
bleu          sacrebleu, sentence level: BLEU-4, 13a tokens, cased, effective order, exponential smoothing; /100
rouge_l       ROUGE-L F-measure (Lin 2004) as rouge-score has it, without stemming: that package would import scikit-learn

Normalisation for the first three is SQuAD's: lower case, no punctuation, no articles, single spaces (on NFKC text).
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.helpers import extract_all_word_ngrams

_BLEU = BLEU(effective_order=True)


def tokens(text: str) -> list[str]:
    """Normalised tokens of a text; articles stay where nothing else would be left."""
    words = re.sub(r"[^\w\s]|_", " ", unicodedata.normalize("NFKC", text).casefold()).split()
    return [w for w in words if w not in ("a", "an", "the")] or words


def overlap(reply: str, gold: str) -> tuple[float, float, float]:
    """Token precision, recall and F1 with multiset counts. Two texts without tokens agree; one without has 0."""
    ours, theirs = Counter(tokens(reply)), Counter(tokens(gold))
    if not ours or not theirs:
        same = float(ours == theirs)
        return same, same, same
    common = (ours & theirs).total()
    precision, recall = common / ours.total(), common / theirs.total()
    return precision, recall, 2 * common / (ours.total() + theirs.total())


@lru_cache(maxsize=1 << 14)
def _ngrams(text: str) -> tuple[Counter[tuple[str, ...]], int]:
    """N-grams of 1 to 4 tokens as sacrebleu's BLEU takes them, and the number of tokens."""
    found: tuple[Counter[tuple[str, ...]], int] = extract_all_word_ngrams(_BLEU.tokenizer(text.rstrip()), 1, 4)
    return found


def bleu(reply: str, gold: str) -> float:
    """What sacrebleu's `sentence_score` gives, of 1 rather than 100; a gold's n-grams are counted once for all replies."""
    (ours, length), (theirs, reference) = _ngrams(reply), _ngrams(gold)
    correct, total = [0] * 4, [0] * 4
    for ngram, count in ours.items():
        total[len(ngram) - 1] += count
        correct[len(ngram) - 1] += min(count, theirs.get(ngram, 0))
    score = BLEU.compute_bleu(correct, total, length, reference, smooth_method="exp", effective_order=True).score
    return float(min(score / 100, 1.0))


def rouge_l(reply: str, gold: str) -> float:
    """F-measure of the longest common subsequence of the tokens, which are runs of a to z and digits."""
    ours, theirs = (re.findall("[a-z0-9]+", text.lower()) for text in (reply, gold))
    if not ours or not theirs:
        return 0.0
    at: dict[str, int] = {}
    for place, token in enumerate(ours):
        at[token] = at.get(token, 0) | 1 << place
    rest = whole = (1 << len(ours)) - 1  # bits still set at the end: tokens that are not in the common subsequence (Hyyrö 2004)
    for token in theirs:
        met = rest & at.get(token, 0)
        rest = (rest + met | rest - met) & whole
    common = len(ours) - rest.bit_count()
    return 2 * common / (len(ours) + len(theirs))


@lru_cache(maxsize=1 << 14)
def scores(reply: str, gold: str) -> dict[str, float]:
    """Every open metric of one reply."""
    _, recall, f1 = overlap(reply, gold)
    return {
        "exact_match": float(tokens(reply) == tokens(gold)),
        "token_recall": recall,
        "token_f1": f1,
        "bleu": bleu(reply, gold),
        "rouge_l": rouge_l(reply, gold),
    }

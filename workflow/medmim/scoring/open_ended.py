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


def tokenize_answer(text: str) -> list[str]:
    """Normalised tokens of a text; articles stay where nothing else would be left."""
    words = re.sub(r"[^\w\s]|_", " ", unicodedata.normalize("NFKC", text).casefold()).split()
    return [w for w in words if w not in ("a", "an", "the")] or words


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


def score_bleu(reply: str, gold: str) -> float:
    """What sacrebleu's `sentence_score` gives, of 1 rather than 100; a gold's n-grams are counted once for all replies."""
    (reply_ngrams, reply_length), (gold_ngrams, gold_length) = _count_ngrams(reply), _count_ngrams(gold)
    correct, total = [0] * 4, [0] * 4
    for ngram, count in reply_ngrams.items():
        total[len(ngram) - 1] += count
        correct[len(ngram) - 1] += min(count, gold_ngrams.get(ngram, 0))
    score = BLEU.compute_bleu(correct, total, reply_length, gold_length, smooth_method="exp", effective_order=True).score
    return float(min(score / 100, 1.0))


def score_rouge_l(reply: str, gold: str) -> float:
    """F-measure of the longest common subsequence of the tokens, which are runs of a to z and digits."""
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
    """Every open metric of one reply."""
    _, recall, f1 = compute_overlap(reply, gold)
    return {
        "exact_match": float(tokenize_answer(reply) == tokenize_answer(gold)),
        "token_recall": recall,
        "token_f1": f1,
        "bleu": score_bleu(reply, gold),
        "rouge_l": score_rouge_l(reply, gold),
    }

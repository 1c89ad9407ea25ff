"""Scores of free-text answers against one gold text, each between 0 and 1 and each named: none is "the" open-ended metric.

exact_match   1 if the normalised texts are equal
token_recall  share of the gold's tokens that the reply has, tokens counted as often as they occur (a repeated word earns once)
token_f1      harmonic mean of that and of the share of the reply's tokens that the gold has
bleu          sacrebleu, sentence level: BLEU-4, 13a tokens, cased, effective order, exponential smoothing; /100
rouge_l       rouge-score's ROUGE-L F-measure, no stemming

Normalisation for the first three is SQuAD's: lower case, no punctuation, no articles, single spaces (on NFKC text).
"""

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU


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


@cache
def _bleu() -> "BLEU":
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


@cache
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, a second or two: only where there are open questions
    from rouge_score.tokenizers import DefaultTokenizer

    return RougeScorer(["rougeL"], tokenizer=DefaultTokenizer(use_stemmer=False))


def scores(reply: str, gold: str) -> dict[str, float]:
    """Every open metric of one reply."""
    _, recall, f1 = overlap(reply, gold)
    return {
        "exact_match": float(tokens(reply) == tokens(gold)),
        "token_recall": recall,
        "token_f1": f1,
        "bleu": min(_bleu().sentence_score(reply, [gold]).score / 100, 1.0),
        "rouge_l": float(_rouge().score(gold, reply)["rougeL"].fmeasure),
    }

"""Open-ended metrics against numbers worked out by hand and against the libraries."""

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from medmim.scoring import open_ended
from medmim.scoring.items import METRIC_LABELS, METRICS, describe_metrics
from medmim.scoring.open_ended import compute_overlap, score_bleu, score_open_answer, score_rouge_l, tokenize_answer

WORDS = ["the", "a", "lesion", "is", "stable", "in", "left", "lung", "Lung,", "(new)", "no", "effusion"]
LONG = st.lists(st.sampled_from("abcd"), max_size=80).map(" ".join)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
ROUGE = rouge_scorer.RougeScorer(["rougeL"])
seeded = settings(derandomize=True, database=None, deadline=None, max_examples=100)


def test_tokens() -> None:
    assert tokenize_answer("The  Lesion, a small_one: T1-weighted!") == ["lesion", "small", "one", "t1", "weighted"]
    assert tokenize_answer("An A") == ["an", "a"]
    assert tokenize_answer("…") == tokenize_answer("") == []


def test_overlap_counts_tokens_as_often_as_they_occur() -> None:
    # reply: lung lung lung effusion; gold: lung effusion left lung -> common: lung twice, effusion once
    precision, recall, f1 = compute_overlap("lung lung lung effusion", "the lung, effusion left lung")
    assert (precision, recall, f1) == (3 / 4, 3 / 4, 3 / 4)
    assert compute_overlap("lung lung lung", "lung effusion")[:2] == (1 / 3, 1 / 2)  # repeating a word earns nothing more
    assert compute_overlap("left lung", "left lung effusion") == (1, 2 / 3, 0.8)


def test_empty() -> None:
    assert compute_overlap("", "lung") == compute_overlap("lung", "") == (0, 0, 0)
    assert compute_overlap("", "...") == (1, 1, 1)
    empty = score_open_answer("", "left lung")
    assert set(empty.values()) == {0}


def test_exact_match_after_normalisation() -> None:
    assert score_open_answer("Left LUNG.", "the left lung")["exact_match"] == 1
    assert score_open_answer("left lungs", "left lung")["exact_match"] == 0
    assert score_open_answer("lung left", "left lung")["exact_match"] == 0


def test_a_perfect_reply_has_every_metric_at_one() -> None:
    assert score_open_answer("stable lesion in the left lung", "stable lesion in the left lung") == pytest.approx(
        {"exact_match": 1, "token_recall": 1, "token_f1": 1, "bleu": 1, "rouge_l": 1}
    )


@seeded
@given(TEXTS, TEXTS)
def test_bleu_and_rouge_are_the_libraries(reply: str, gold: str) -> None:
    found = score_open_answer(reply, gold)
    assert found["bleu"] == pytest.approx(sacrebleu.sentence_bleu(reply, [gold], use_effective_order=True).score / 100)
    assert found["rouge_l"] == pytest.approx(ROUGE.score(gold, reply)["rougeL"].fmeasure)
    assert all(0 <= value <= 1 for value in found.values())


@seeded
@given(LONG, LONG)
def test_long_texts_too(reply: str, gold: str) -> None:
    assert score_rouge_l(reply, gold) == pytest.approx(ROUGE.score(gold, reply)["rougeL"].fmeasure)
    assert score_bleu(reply, gold) == pytest.approx(sacrebleu.sentence_bleu(reply, [gold], use_effective_order=True).score / 100)


@seeded
@given(TEXTS, TEXTS)
def test_recall_is_precision_the_other_way_round(one: str, other: str) -> None:
    assert compute_overlap(one, other)[0] == compute_overlap(other, one)[1]
    assert compute_overlap(one, other)[2] == compute_overlap(other, one)[2]


def test_a_metric_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_ended, "OPEN_METRICS", dict(open_ended.OPEN_METRICS))
    score_open_answer.cache_clear()

    @open_ended.open_metric("first letter", "1 where both begin with the same letter", lowest=-1)
    def score_first_letter(reply: str, gold: str) -> float:
        return 1.0 if reply[:1] == gold[:1] else -2.0

    assert list(score_open_answer("left", "lung")) == [*METRICS["open"], "first_letter"]
    with pytest.raises(ValueError, match="metric first_letter scores -2, outside its range -1 to 1"):
        score_open_answer("left", "right")
    with pytest.raises(ValueError, match="metric percent: its range is 0 to 100"):
        open_ended.open_metric("percent", "", highest=100)
    score_open_answer.cache_clear()


def test_every_metric_has_a_name_for_people_and_is_named_in_the_answers_table() -> None:
    assert list(METRIC_LABELS) == [*METRICS["closed"], *METRICS["open"]] and all(METRIC_LABELS.values())
    assert describe_metrics() == (
        "accuracy, loglikelihood_accuracy (by letter), text_loglikelihood_accuracy, circular_accuracy (right as asked and under"
        " every rotation), exact_match, token_recall, token_f1, bleu, rouge_l"
    )

"""No generated question is answered by its text alone; and the classifier that says so finds it where one is."""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from medmim.benchmarks.quality.faults import Entry, read_sets
from medmim.benchmarks.quality.statistics import compute_statistics
from medmim.benchmarks.quality.text_only import TextOnlyScores, score_text_only, select_usable
from medmim.config.source_plugins import SOURCES
from medmim.questions.generate import generate_questions
from medmim.questions.split import merge_questions
from medmim.tables import table_io

sys.path.insert(0, str(Path(__file__).parents[3]))
import bulk

PATIENTS = {"embed": 350, "lumiere": 120, "ms_cxr_t": 500, "vqa_rad": 200, "odir": 400}
TRAIN = {"temporal": 1000, "reasoning": 600, "comparison": 600, "coreference": 800}
BENCHMARK = {"temporal": 500, "reasoning": 300, "comparison": 250, "coreference": 500, "rad": 250, "odir": 300}
POINTS = 0.03


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Entry]]]:
    """Generated questions of findings in bulk, by split and set."""
    rows = []
    for source, patients in PATIENTS.items():
        cohort = bulk.draw_cohort(source, patients)
        images, findings = pd.DataFrame(cohort.images), pd.DataFrame(cohort.findings)
        module, sets = import_module(f"medmim.sources.{source}.questions"), SOURCES[source].list_sets()
        rows += generate_questions(
            source, module, images, findings, sets=sets, seed=11, benchmark_fraction=0.4, open_fraction=0.1
        )
    merged = merge_questions(rows, seed=11, train=TRAIN, benchmark=BENCHMARK)
    folder = tmp_path_factory.mktemp("made")
    for split in ("train", "benchmark"):
        table_io.write_table(folder / f"{split}.parquet", "qa", merged.splits[split])
    return {split: dict(read_sets(folder / f"{split}.parquet")) for split in ("train", "benchmark")}


def told(train: dict[str, list[Entry]], benchmark: dict[str, list[Entry]]) -> dict[str, TextOnlyScores]:
    return score_text_only([e for found in train.values() for e in found], benchmark)


def test_texts_alone_tell_no_more_than_a_constant_answer(made: dict[str, dict[str, list[Entry]]]) -> None:
    found = told(made["train"], made["benchmark"])
    n = sum(t.n for t in found.values())
    assert set(found) == set(BENCHMARK)
    for share in ("trained", "within"):
        over = {name: getattr(t, share) - t.constant for name, t in found.items()}
        # of all sets together: 0.5 / sqrt(1700) is 1.2 points, the standard error of each of the two shares
        assert sum(over[name] * t.n for name, t in found.items()) / n <= POINTS, over
        for name, t in found.items():  # of one set alone two standard errors are 6 points or so, on top
            assert over[name] <= POINTS + 2 * 0.5 / t.n**0.5, (share, name, t)
    assert n > 1700


def worded(entry: Entry, index: int) -> Entry:
    """Begun in a way that tells the gold's place, in two of three questions."""
    assert entry.gold is not None
    return replace(entry, question_text=f"{('Now', 'Well', 'So')[entry.gold % 3]}: {entry.question_text}") if index % 3 else entry


def longer(entry: Entry, index: int) -> Entry:
    """With more said in the gold than in other options, in two of three questions."""
    options = tuple(f"{o}, as seen here" if place == entry.gold and index % 3 else o for place, o in enumerate(entry.options))
    return replace(entry, options=options)


@pytest.mark.parametrize("leak", [worded, longer])
def test_a_planted_leak_is_found(made: dict[str, dict[str, list[Entry]]], leak: Callable[[Entry, int], Entry]) -> None:
    train, benchmark = (
        {"temporal": [leak(e, i) for i, e in enumerate(select_usable(made[split]["temporal"]))]}
        for split in ("train", "benchmark")
    )
    found = told(train, benchmark)["temporal"]
    assert found.constant is not None
    assert found.trained is not None
    assert found.within is not None
    assert found.trained > found.constant + 0.15, found
    assert found.within > found.constant + 0.1, found


def test_what_can_not_be_guessed(made: dict[str, dict[str, list[Entry]]]) -> None:
    entries = made["benchmark"]["comparison"]
    assert score_text_only([], {"none": []}) == {"none": TextOnlyScores(0, None, None, None)}
    broken = [replace(e, gold=None) for e in entries]
    assert score_text_only(broken, {"set": [*broken, *select_usable(entries)[:1]]}) == {"set": TextOnlyScores(1, 1.0, None, None)}


def test_constant_answers(made: dict[str, dict[str, list[Entry]]]) -> None:
    entry = select_usable(made["benchmark"]["comparison"])[0]

    def constant(*golds: tuple[str, int]) -> float | None:
        asked = [replace(entry, options=tuple(o), gold=g, content=(n,)) for n, (o, g) in enumerate(golds)]
        return score_text_only([], {"s": asked})["s"].constant

    assert constant(("xy", 0), ("xy", 0), ("xy", 1)) == 2 / 3  # A
    assert constant(("xy", 0), ("yx", 1), ("xy", 1), ("zy", 1)) == 3 / 4  # B; x would have two
    assert constant(("xy", 0), ("yx", 1), ("xz", 0), ("zx", 1)) == 1  # x


def test_statistics_of_sets(made: dict[str, dict[str, list[Entry]]], tmp_path: Path) -> None:
    pair = select_usable(made["benchmark"]["comparison"])[:2]
    first = replace(pair[0], question_text="One two one?", options=("a", "b b"), gold=1, answer="b b", images=("i", "j"))
    second = replace(pair[1], question_text="One two one?", options=("a", "b", "c"), gold=0, answer="a", images=("i", "j", "k"))
    third = replace(first, question_text="Say it.", closed=False, options=(), gold=None, letter="", answer="It is so.")
    rows = compute_statistics(
        "ours", "benchmark", {"comparison": [first, second, third]}, {"comparison": TextOnlyScores(2, 0.5, None, 0.0)}
    )
    table_io.write_table(tmp_path / "statistics.parquet", "statistics", rows)
    value = {(r["statistic"], r["key"]): (r["value"], r["n"]) for r in rows}
    assert {(r["origin"], r["split"], r["set"]) for r in rows} == {("ours", "benchmark", "comparison")}
    assert value == {
        ("questions", "closed"): (2, 3),
        ("questions", "open"): (1, 3),
        ("images", "2"): (2 / 3, 3),
        ("images", "3"): (1 / 3, 3),
        ("options", "2"): (0.5, 2),
        ("options", "3"): (0.5, 2),
        ("letters", "A"): (0.5, 2),
        ("letters", "B"): (0.5, 2),
        ("answer_words", "closed mean"): (1.5, 2),
        ("answer_words", "closed median"): (1.5, 2),
        ("answer_words", "closed longest"): (2, 2),
        ("answer_words", "open mean"): (3, 1),
        ("answer_words", "open median"): (3, 1),
        ("answer_words", "open longest"): (3, 1),
        ("wordings", ""): (2, 3),
        ("ngrams", "1"): (4, 8),
        ("ngrams", "2"): (3, 5),
        ("ngrams", "3"): (1, 2),
        ("guess", "constant"): (0.5, 2),
        ("guess", "text_only_within"): (0.0, 2),
    }
    released = compute_statistics("release", "train", {"Med_MIM_train_inherent_Comparison.json": [first], "odd.json": [first]})
    assert {r["set"] for r in released} == {"comparison", "odd.json"}

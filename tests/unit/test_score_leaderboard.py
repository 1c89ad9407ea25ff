"""The leaderboard against hand arithmetic, its baselines, its invariances, what it refuses, and the two programs."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from score_made import prediction, question

from medmim import tables
from medmim.score.answers import answers
from medmim.score.leaderboard import leaderboard

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
ABC, AB = ["improving", "stable", "worsening"], ["first image", "second image"]
QA = [
    question("t1", "temporal", ABC, "stable", ["p1"]),
    question("t2", "temporal", ABC, "stable", ["p1"]),
    question("t3", "temporal", ABC, "worsening", ["p2"]),
    question("t4", "temporal", AB, "first image", ["p3"]),
    question("c1", "coreference", AB, "second image", ["p1", "p4"]),
    question("c2", "coreference", AB, "second image", ["p5", "p6"]),
    question("c3", "coreference", [], "the left lung", ["p5", "p6"]),
    question("o1", "odir", ["drusen", "drusen", "cataract", "glaucoma"], "cataract", ["p7"]),
    question("o2", "odir", ["drusen", "drusen", "cataract", "glaucoma"], "drusen", ["p7"]),
]
#             t1        t2   t3   t4              c1   c2              c3            o1   o2
SAID = {
    ("base", "plain"): ["A", "A", "A", "A", "A", "A", "lung", "A", "A"],
    ("base", "blind"): ["A", "A", "A", "A", "A", "A", "lung", "A", "A"],
    ("tuned", "plain"): ["B", "B", "A", "A", "B", "B", "The left lung.", "C", "B"],
    ("tuned", "blind"): ["B", "", "A or B", "I'm sorry, I can't help", "B", "A", "", "C", "D"],
}
CFG: dict[str, Any] = {"seed": 3, "resamples": 500, "pairs": {"tuned": "base"}}


def predictions(model: str, condition: str) -> list[dict[str, Any]]:
    return [
        prediction(q["qa_id"], model, condition, reply, [float(-i) for i in range(len(q["options"]))])
        for q, reply in zip(QA, SAID[model, condition], strict=True)
    ]


def answer_frames(qa: list[dict[str, Any]] = QA) -> list[pd.DataFrame]:
    made = []
    for model in ("base", "tuned"):
        given = [tables.build("predictions", predictions(model, c)) for c in ("plain", "blind")]
        made.append(tables.build("answers", answers(tables.build("qa", qa), given)).to_pandas())
    return made


def board(qa: list[dict[str, Any]] = QA, frames: list[pd.DataFrame] | None = None, **cfg: Any) -> list[dict[str, Any]]:
    rows = leaderboard(tables.build("qa", qa), answer_frames() if frames is None else frames, **CFG | cfg)
    tables.build("leaderboard", rows)
    return rows


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, ...], dict[str, Any]]:
    rows = board()
    found = {(r["model"], r["set"], r["kind"], r["condition"], r["metric"]): r for r in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize(
    ("model", "set_", "kind", "condition", "metric", "value"),
    [
        ("base", "temporal", "closed", "plain", "accuracy", 1 / 4),
        ("tuned", "temporal", "closed", "plain", "accuracy", 3 / 4),
        ("tuned", "temporal", "closed", "blind", "accuracy", 1 / 4),
        ("tuned", "coreference", "closed", "plain", "accuracy", 1),
        ("tuned", "held_in", "closed", "plain", "accuracy", 5 / 6),
        ("base", "held_in", "closed", "plain", "accuracy", 1 / 6),
        ("tuned", "odir", "closed", "plain", "accuracy", 1),
        ("base", "odir", "closed", "plain", "accuracy", 1 / 2),
        ("tuned", "held_out", "closed", "blind", "accuracy", 1 / 2),
        ("tuned", "held_in", "closed", "plain", "accuracy_minus_base", 4 / 6),
        ("tuned", "held_in", "closed", "plain", "accuracy_minus_blind", 5 / 6 - 2 / 6),
        ("base", "held_in", "closed", "plain", "accuracy_minus_blind", 0),
        ("base", "temporal", "closed", "plain", "loglikelihood_accuracy", 1 / 4),
        ("tuned", "temporal", "closed", "blind", "unparsed_rate", 1 / 4),
        ("tuned", "temporal", "closed", "blind", "ambiguous_rate", 1 / 4),
        ("tuned", "held_in", "closed", "blind", "refused_rate", 1 / 6),
        ("tuned", "held_in", "closed", "plain", "unparsed_rate", 0),
        ("tuned", "coreference", "open", "plain", "exact_match", 1),
        ("base", "held_in", "open", "plain", "token_recall", 1 / 2),
        ("base", "coreference", "open", "plain", "token_f1", 2 / 3),
        ("tuned", "coreference", "open", "plain", "token_f1_minus_base", 1 / 3),
        ("chance", "temporal", "closed", "plain", "accuracy", (3 * 1 / 3 + 1 / 2) / 4),
        ("chance", "held_in", "closed", "plain", "accuracy", (3 * 1 / 3 + 3 * 1 / 2) / 6),
        ("chance", "odir", "closed", "plain", "accuracy", (1 / 4 + 2 / 4) / 2),  # two letters have the gold's text
        ("majority", "temporal", "closed", "plain", "accuracy", 2 / 4),  # B, gold of t1 and t2; t4 has B as well, wrong
        ("majority", "coreference", "closed", "plain", "accuracy", 1),
        ("majority", "held_in", "closed", "plain", "accuracy", 4 / 6),
        ("majority", "odir", "closed", "plain", "accuracy", 1 / 2),  # A and C are equally frequent: the first
    ],
)
def test_value(cells, model: str, set_: str, kind: str, condition: str, metric: str, value: float) -> None:
    assert cells[model, set_, kind, condition, metric]["value"] == pytest.approx(value, abs=1e-9)


def test_counts_and_abilities(cells) -> None:
    temporal = cells["base", "temporal", "closed", "plain", "accuracy"]
    assert (temporal["n"], temporal["n_patients"], temporal["ability"]) == (4, 3, "temporal")
    total = cells["base", "held_in", "closed", "plain", "accuracy"]
    assert (total["n"], total["n_patients"], total["ability"]) == (6, 6, "held_in")
    assert cells["base", "odir", "closed", "plain", "accuracy"]["ability"] == "held_out"
    assert {key[1] for key in cells} == {"temporal", "coreference", "odir", "held_in", "held_out"}


def test_which_rows_there_are(cells) -> None:
    assert {key[3] for key in cells if key[4].count("_minus_")} == {"plain"}
    assert {key[0] for key in cells if key[4].endswith("_minus_base")} == {"tuned"}
    assert {key[0] for key in cells if key[4].endswith("_minus_blind")} == {"base", "tuned"}
    assert {key[2:] for key in cells if key[0] in ("chance", "majority")} == {("closed", "plain", "accuracy")}


def test_intervals(cells) -> None:
    for key, row in cells.items():
        # one patient (odir), patients always together (c3), and chance, which is exact, have none
        none = key[0] == "chance" or key[1] in ("odir", "held_out") or key[2] == "open"
        assert (row["ci_low"] is None) == (row["ci_high"] is None) == none, key
        if not none:
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    same = cells["base", "held_in", "closed", "plain", "accuracy_minus_blind"]
    assert (same["ci_low"], same["ci_high"]) == (0, 0)


def test_interval_by_enumeration() -> None:
    """Temporal, base: right on t4 of p3 alone. Of 27 draws of three patients 8 have no p3 (30 %: 0), one p3 only (3.7 %: 1)."""
    rows = board(resamples=10_000)
    row = next(
        r for r in rows if (r["model"], r["set"], r["condition"], r["metric"]) == ("base", "temporal", "plain", "accuracy")
    )
    assert (row["ci_low"], row["ci_high"]) == (0, 1)


def test_order_of_questions_answers_and_files_does_not_matter() -> None:
    frames = answer_frames()
    shuffled = QA[:]
    random.Random(0).shuffle(shuffled)
    mixed = [frame.sample(frac=1, random_state=1) for frame in frames[::-1]]
    assert board(shuffled, mixed) == board(QA, frames)


def test_another_model_or_set_changes_nothing_elsewhere() -> None:
    both = {(r["model"], r["set"], r["metric"], r["condition"], r["kind"]): r for r in board()}
    alone = board(frames=answer_frames()[:1], pairs={})
    assert {r["model"] for r in alone} == {"base", "chance", "majority"}
    assert all(both[r["model"], r["set"], r["metric"], r["condition"], r["kind"]] == r for r in alone)
    fewer = [q for q in QA if q["set"] != "odir"]
    kept = [frame[frame["set"] != "odir"] for frame in answer_frames()]
    for row in board(fewer, kept):
        assert both[row["model"], row["set"], row["metric"], row["condition"], row["kind"]] == row


def test_seed_moves_intervals_only() -> None:
    qa = [question(f"t{i}", "temporal", AB, AB[i % 2], [f"p{i % 9}"]) for i in range(60)]
    given = [prediction(q["qa_id"], "m", "plain", "A", [0.0, -1.0]) for q in qa]
    frame = tables.build("answers", answers(tables.build("qa", qa), [tables.build("predictions", given)])).to_pandas()
    one, same, other = (board(qa, [frame], seed=s, pairs={}, resamples=101) for s in (1, 1, 2))
    assert one == same
    assert [r["value"] for r in one] == [r["value"] for r in other]
    assert one != other


def drop(frames: list[pd.DataFrame], qa_id: str, **where: str) -> list[pd.DataFrame]:
    return [f[~((f["qa_id"] == qa_id) & (f[list(where)] == pd.Series(where)).all(axis=1))] for f in frames]


def test_what_is_refused() -> None:
    frames = answer_frames()
    with pytest.raises(tables.TableError, match="answers of tuned, blind, accuracy: 0 answers to question t3"):
        board(frames=drop(frames, "t3", model="tuned", condition="blind", metric="accuracy"))
    with pytest.raises(tables.TableError, match="answers of base, blind, accuracy: 2 answers to question c1"):
        board(frames=[*frames, frames[0][frames[0]["qa_id"] == "c1"]])
    with pytest.raises(tables.TableError, match="question c1 is no closed question of the benchmark"):
        board([q for q in QA if q["qa_id"] != "c1"], frames)
    with pytest.raises(tables.TableError, match="answers of base, blind: none to question c3"):
        board(frames=[f[f["kind"] == "closed"] for f in frames])
    with pytest.raises(tables.TableError, match=r"sets \['odir'\] .* neither"):
        board(held_out=["rad"])
    with pytest.raises(tables.TableError, match="pairs name gone, which has no answers"):
        board(pairs={"tuned": "gone"})
    with pytest.raises(tables.TableError, match="chance is kept for the baseline"):
        board(frames=[f.assign(model=f["model"].replace("base", "chance")) for f in frames], pairs={})
    with pytest.raises(tables.TableError, match="no metric of closed questions"):
        board(frames=[f.assign(metric=f["metric"].replace("accuracy", "luck")) for f in frames])


def call(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, check=False)


def test_the_programs(tmp_path: Path) -> None:
    tables.write(tmp_path / "qa.parquet", "qa", QA)
    for model, condition in SAID:
        tables.write(tmp_path / f"{model}.{condition}.parquet", "predictions", predictions(model, condition))
    for model in ("base", "tuned"):
        files = [tmp_path / f"{model}.{c}.parquet" for c in ("plain", "blind")]
        done = call(
            SCRIPTS / "score.py", "--qa", tmp_path / "qa.parquet", "--predictions", *files,
            "--answers", tmp_path / f"scores/{model}.parquet",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"{model}: 9 questions" in done.stderr
    record = json.loads((tmp_path / "scores/base.parquet.prov.json").read_text())
    assert record["questions_with_duplicate_options"] == 2
    assert not {"torch", "transformers"} & record["code"]["packages"].keys()
    written = []
    for run, models in enumerate((("base", "tuned"), ("tuned", "base"))):
        out = tmp_path / f"leaderboard{run}.parquet"
        done = call(
            SCRIPTS / "leaderboard.py", "--qa", tmp_path / "qa.parquet", "--answers",
            *[tmp_path / f"scores/{m}.parquet" for m in models], "--leaderboard", out, "--cfg", json.dumps(CFG),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert tables.read(tmp_path / "leaderboard0.parquet", "leaderboard").to_pylist() == board()


def test_a_missing_prediction_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    tables.write(tmp_path / "qa.parquet", "qa", QA)
    tables.write(tmp_path / "p.parquet", "predictions", predictions("base", "plain")[:-1])
    done = call(SCRIPTS / "score.py", "--qa", tmp_path / "qa.parquet", "--predictions", tmp_path / "p.parquet",
                "--answers", tmp_path / "out/a.parquet")  # fmt: skip
    assert done.returncode == 1
    assert "error: base, plain: no prediction for question o2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").iterdir())

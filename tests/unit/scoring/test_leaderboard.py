"""The leaderboard against hand arithmetic, its baselines, comparisons and invariances, what it refuses, and the two programs."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from score_made import make_prediction, make_question
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from config_files import config_file
from medmim.scoring.leaderboard import LeaderboardRows, build_leaderboard, flag_clean_questions
from medmim.scoring.score_replies import score_predictions
from medmim.tables import table_io

SCRIPTS = Path(__file__).parents[3] / "workflow/scripts"
ABC, AB = ["improving", "stable", "worsening"], ["first image", "second image"]
QA = [
    make_question("t1", "temporal", ABC, "stable", ["p1"]),
    make_question("t2", "temporal", ABC, "stable", ["p1"]),
    make_question("t3", "temporal", ABC, "worsening", ["p2"]),
    make_question("t4", "temporal", AB, "first image", ["p3"]),
    make_question("c1", "coreference", AB, "second image", ["p1", "p4"]),
    make_question("c2", "coreference", AB, "second image", ["p5", "p6"]),
    make_question("c3", "coreference", [], "the left lung", ["p5", "p6"]),
    make_question("o1", "odir", ["drusen", "drusen", "cataract", "glaucoma"], "cataract", ["p7"]),
    make_question("o2", "odir", ["drusen", "drusen", "cataract", "glaucoma"], "drusen", ["p7"]),
]
#             t1        t2   t3   t4              c1   c2              c3            o1   o2
SAID = {
    ("base", "plain"): ["A", "A", "A", "A", "A", "A", "lung", "A", "A"],
    ("base", "blind"): ["A", "A", "A", "A", "A", "A", "lung", "A", "A"],
    ("tuned", "plain"): ["B", "B", "A", "A", "B", "B", "The left lung.", "C", "B"],
    ("tuned", "blind"): ["B", "", "A or B", "I'm sorry, I can't help", "B", "A", "", "C", "D"],
}
TRAIN = [make_question("x1", "temporal", AB, "first image", ["z1"], image_ids=["z"])]
CFG: dict[str, Any] = {"seed": 3, "resamples": 500, "pairs": {"tuned": "base"}}


def predictions(model: str, condition: str) -> list[dict[str, Any]]:
    return [
        make_prediction(q["qa_id"], model, condition, reply, [float(-i) for i in range(len(q["options"]))])
        for q, reply in zip(QA, SAID[model, condition], strict=True)
    ]


def answered(given: list[dict[str, Any]], qa: list[dict[str, Any]] = QA) -> pa.Table:
    return score_predictions(table_io.build_table("qa", qa), [table_io.build_table("predictions", given)])


def answer_tables(qa: list[dict[str, Any]] = QA) -> list[pa.Table]:
    return [answered([*predictions(model, "plain"), *predictions(model, "blind")], qa) for model in ("base", "tuned")]


def boards(
    qa: list[dict[str, Any]] = QA, given: list[pa.Table] | None = None, train: list[dict[str, Any]] = TRAIN, **cfg: Any
) -> LeaderboardRows:
    given = answer_tables() if given is None else given
    found = build_leaderboard(table_io.build_table("qa", qa), table_io.build_table("qa", train), given, **CFG | cfg)
    table_io.build_table("leaderboard", found.leaderboard)
    table_io.build_table("comparisons", found.comparisons)
    return found


def board(qa: list[dict[str, Any]] = QA, given: list[pa.Table] | None = None, **cfg: Any) -> list[dict[str, Any]]:
    return boards(qa, given, **cfg).leaderboard


def by_cell(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows of the whole sets by model, set, kind, condition and metric."""
    return {(r["model"], r["set"], r["kind"], r["condition"], r["metric"]): r for r in rows if r["part"] == "all"}


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, ...], dict[str, Any]]:
    rows = board()
    found = by_cell(rows)
    assert 2 * len(found) == len(rows)
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
        # one patient (odir), patients always together (c3), chance, which is exact, and what is always the same have none
        none = key[0] == "chance" or key[1] in ("odir", "held_out") or key[2] == "open" or row["value"] in (-1, 0, 1)
        assert (row["ci_low"] is None) == (row["ci_high"] is None), key
        assert none or row["n_patients"] < 3 or row["ci_low"] is not None, key
        assert row["ci_low"] is None or (not none and row["ci_low"] <= row["value"] <= row["ci_high"]), key


def test_interval_by_enumeration() -> None:
    """Temporal, base: right on t4 of p3 alone. Of 27 draws of three patients 8 have no p3 (30 %: 0), one p3 only (3.7 %: 1)."""
    row = by_cell(board(resamples=10_000))["base", "temporal", "closed", "plain", "accuracy"]
    assert (row["ci_low"], row["ci_high"]) == (0, 1)


def test_order_of_questions_answers_and_files_does_not_matter() -> None:
    given = answer_tables()
    shuffled = QA[:]
    random.Random(0).shuffle(shuffled)
    mixed = [table.take(np.random.default_rng(1).permutation(len(table))) for table in given[::-1]]
    assert boards(shuffled, mixed) == boards(QA, given)


def test_another_model_or_set_changes_nothing_elsewhere() -> None:
    both = by_cell(board())
    alone = by_cell(board(given=answer_tables()[:1], pairs={}))
    assert {key[0] for key in alone} == {"base", "chance", "majority"}
    assert alone.items() <= both.items()
    fewer = [q for q in QA if q["set"] != "odir"]
    kept = [table.filter(pc.not_equal(table["set"], "odir")) for table in answer_tables()]
    assert by_cell(board(fewer, kept)).items() <= both.items()


def test_seed_moves_intervals_only() -> None:
    qa = [make_question(f"t{i}", "temporal", AB, AB[i % 2], [f"p{i % 9}"]) for i in range(60)]
    given = answered([make_prediction(q["qa_id"], "m", "plain", "A", [0.0, -1.0]) for q in qa], qa)
    one, same, other = (board(qa, [given], seed=s, pairs={}, resamples=101) for s in (1, 1, 2))
    assert one == same
    assert [r["value"] for r in one] == [r["value"] for r in other]
    assert one != other


def test_conditions_that_ask_fewer_questions_are_compared_on_these() -> None:
    """reordered needs several images: q0 and q1 have two, q2 one. Right: as asked q0, q1, q2; reordered q0 only."""
    qa = [make_question(f"q{i}", "rad", AB, "first image", [f"p{i}"], image_ids=["i", "j"][: 1 + (i < 2)]) for i in range(3)]
    said = [make_prediction(f"q{i}", "m", "plain", "A") for i in range(3)]
    said += [make_prediction("q0", "m", "reordered", "A"), make_prediction("q1", "m", "reordered", "")]
    found = by_cell(board(qa, [answered(said, qa)], pairs={}))
    told = {key[3:]: (row["value"], row["n"], row["n_patients"]) for key, row in found.items() if key[:2] == ("m", "rad")}
    assert told["plain", "accuracy"] == (1, 3, 3)
    assert told["reordered", "accuracy"] == (0.5, 2, 2)
    assert told["reordered", "unparsed_rate"] == (0.5, 2, 2)
    assert told["plain", "accuracy_minus_reordered"] == (0.5, 2, 2)


def test_rotations() -> None:
    """A model that always says A: right as asked where the gold is A, once in so many rotations, and never under all."""
    qa = [make_question(f"q{i}", "rad", ABC[: 2 + i % 2], "improving", [f"p{i}"]) for i in range(4)]
    said = [make_prediction(q["qa_id"], "m", "plain", "A") for q in qa]
    said += [make_prediction(q["qa_id"], "m", "rotated", "A", rotation=k) for q in qa for k in range(1, len(q["options"]))]
    said[4] |= {"reply": "B"}  # q0, whose gold is at B now
    found = by_cell(board(qa, [answered(said, qa)], pairs={}))
    told = {key[3:]: (row["value"], row["n"]) for key, row in found.items() if key[:2] == ("m", "rad")}
    assert told["plain", "accuracy"] == (1, 4)
    assert told["rotated", "accuracy"] == (0.25, 4)  # the mean of 1, 0, 0, 0, each over its own rotations
    assert told["rotated", "circular_accuracy"] == (0.25, 4)
    assert told["plain", "accuracy_minus_rotated"] == (0.75, 4)
    assert told["rotated", "unparsed_rate"] == (0, 4)


def test_recall_by_letter(cells) -> None:
    """Temporal: gold B in t1 and t2, C in t3, A in t4; tuned says B, B, A, A."""
    told = {
        k[4]: (r["value"], r["n"], r["n_patients"]) for k, r in cells.items() if k[:4] == ("tuned", "temporal", "closed", "plain")
    }
    assert {metric: value for metric, value in told.items() if metric.startswith("recall")} == {
        "recall_A": (1, 1, 1), "recall_B": (1, 2, 1), "recall_C": (0, 1, 1),
    }  # fmt: skip


def test_what_could_not_be_asked_has_a_rate_of_both_kinds() -> None:
    given = [p | {"failure": "too long", "reply": ""} if p["qa_id"] in ("t1", "c3") else p for p in predictions("base", "plain")]
    found = by_cell(board(given=[answered(given)], pairs={}))
    rates = {key[1:3]: row["value"] for key, row in found.items() if key[4] == "not_asked_rate"}
    assert rates["temporal", "closed"] == 0.25 and rates["coreference", "open"] == 1 and rates["odir", "closed"] == 0


def test_clean_scores_leave_out_what_shares_a_patient_or_an_image_with_training() -> None:
    qa = [make_question(f"q{i}", "temporal", AB, AB[0], [f"p{i}", f"r{i}"], image_ids=[f"i{i}", f"j{i}"]) for i in range(5)]
    train = [
        make_question("x1", "temporal", AB, AB[0], ["r1"], image_ids=["other"]),
        make_question("x2", "temporal", AB, AB[0], ["other"], image_ids=["k", "j3"]),
    ]
    assert flag_clean_questions(table_io.build_table("qa", qa), table_io.build_table("qa", train)).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
    given = [answered([make_prediction(q["qa_id"], "m", "plain", "BAAAB"[i]) for i, q in enumerate(qa)], qa)]
    rows = [r for r in board(qa, given, train=train, pairs={}) if (r["model"], r["metric"]) == ("m", "accuracy")]
    assert {(r["set"], r["part"]): (r["value"] * r["n"], r["n"], r["n_patients"]) for r in rows} == {
        ("temporal", "all"): (3, 5, 10), ("temporal", "clean"): (pytest.approx(1), 3, 6),
        ("held_in", "all"): (3, 5, 10), ("held_in", "clean"): (pytest.approx(1), 3, 6),
    }  # fmt: skip
    assert {r["part"] for r in board(qa, given, train=qa, pairs={})} == {"all"}  # nothing is clean


def test_where_all_is_clean_both_parts_say_the_same() -> None:
    found = boards()
    for rows in (found.leaderboard, found.comparisons):
        parts = [[r | {"part": ""} for r in rows if r["part"] == part] for part in ("all", "clean")]
        assert parts[0] == parts[1] != []


def crowd(patients_of: Any, seed: int = 0) -> tuple[list[dict[str, Any]], list[pa.Table]]:
    """Four models of 0.4 to 0.7 on 60 questions of a set that is none of the known ones."""
    rng = np.random.default_rng(seed)
    qa = [make_question(f"q{i:02}", "medframe", AB, AB[int(rng.integers(2))], patients_of(i)) for i in range(60)]
    given = []
    for n, model in enumerate(("a", "b", "c", "d")):
        right = rng.random(60) < 0.4 + 0.1 * n
        said = ["AB"[q["answer_index"] if ok else 1 - q["answer_index"]] for q, ok in zip(qa, right, strict=True)]
        given.append(answered([make_prediction(q["qa_id"], model, "plain", s) for q, s in zip(qa, said, strict=True)], qa))
    return qa, given


def test_every_pair_is_compared_on_independent_questions_by_mcnemar_too() -> None:
    qa, given = crowd(lambda i: [f"p{i}"])
    found = boards(qa, given, pairs={"c": "d"}, resamples=2000)
    rows = [r for r in found.comparisons if (r["set"], r["part"]) == ("medframe", "all")]
    assert [(r["model"], r["other"], r["relation"]) for r in rows] == [
        ("a", "b", ""), ("a", "c", ""), ("a", "d", ""), ("b", "c", ""), ("b", "d", ""), ("c", "d", "base"),
    ]  # fmt: skip
    right = {t["model"][0].as_py(): t.filter(pc.equal(t["metric"], "accuracy"))["value"].to_numpy() for t in given}
    for row in rows:
        one, other = right[row["model"]], right[row["other"]]
        assert row["value"] == pytest.approx((one - other).mean()) and (row["n"], row["n_patients"]) == (60, 60)
        assert (row["only_model"], row["only_other"]) == ((one > other).sum(), (one < other).sum())
        table = [[((one == x) & (other == y)).sum() for y in (1, 0)] for x in (1, 0)]
        assert row["p_mcnemar"] == pytest.approx(mcnemar(table, exact=True).pvalue)
        assert (row["p"] < 0.05) == (not row["ci_low"] <= 0 <= row["ci_high"])
        assert row["p"] == pytest.approx(mcnemar(table, exact=False, correction=False).pvalue, abs=0.05)
    for p in ("p", "p_mcnemar"):
        assert [r[f"{p}_holm"] for r in rows] == pytest.approx(multipletests([r[p] for r in rows], method="holm")[1])
    assert {(r["set"], r["part"]) for r in found.comparisons} == {("medframe", p) for p in ("all", "clean")}
    cells = by_cell(found.leaderboard)
    minus = cells["c", "medframe", "closed", "plain", "accuracy_minus_base"]
    assert (minus["value"], minus["ci_low"], minus["ci_high"]) == (rows[-1]["value"], rows[-1]["ci_low"], rows[-1]["ci_high"])
    assert minus["ability"] == "further"


def test_mcnemar_is_left_out_where_a_patient_has_two_questions() -> None:
    qa, given = crowd(lambda i: [f"p{i // 2}"])
    rows = boards(qa, given, pairs={}).comparisons
    assert all(r["p_mcnemar"] is None and r["p_mcnemar_holm"] is None and r["p"] is not None for r in rows)


def test_models_that_answer_alike_differ_by_nothing() -> None:
    qa, given = crowd(lambda i: [f"p{i}"])
    twin = given[0].set_column(1, "model", pa.array(["z"] * len(given[0])))
    row = next(r for r in boards(qa, [given[0], twin], pairs={}).comparisons if r["set"] == "medframe")
    assert (row["value"], row["ci_low"], row["ci_high"], row["p"], row["p_holm"], row["p_mcnemar"]) == (0, None, None, 1, 1, 1)


def without(given: list[pa.Table], qa_id: str, **where: str) -> list[pa.Table]:
    found = []
    for table in given:
        out = pc.equal(table["qa_id"], qa_id)
        for column, value in where.items():
            out = pc.and_(out, pc.equal(table[column], value))
        found.append(table.filter(pc.invert(out)))
    return found


def changed(given: list[pa.Table], column: str, old: str, new: str) -> list[pa.Table]:
    found = []
    for table in given:
        at = table.column_names.index(column)
        found.append(table.set_column(at, table.schema.field(at), pc.replace_substring(table[column], old, new)))
    return found


def test_what_is_refused() -> None:
    given = answer_tables()
    with pytest.raises(table_io.TableError, match="answers of tuned, blind, accuracy: 0 answers to question t3"):
        board(given=without(given, "t3", model="tuned", condition="blind", metric="accuracy"))
    with pytest.raises(
        table_io.TableError, match="answers of base, blind, accuracy: 2 answers to question c1, expected 1; score it"
    ):
        board(given=[pa.concat_tables([given[0], given[0].filter(pc.equal(given[0]["qa_id"], "c1"))]), given[1]])
    with pytest.raises(table_io.TableError, match=r"answers of base, blind, .*: given by two tables"):
        board(given=[*given, given[0]])
    with pytest.raises(table_io.TableError, match="answers of base, blind: question c1 is not in the benchmark"):
        board([q for q in QA if q["qa_id"] != "c1"], given)
    with pytest.raises(table_io.TableError, match="answers of base, blind: none to question c3"):
        board(given=[table.filter(pc.equal(table["kind"], "closed")) for table in given])
    with pytest.raises(table_io.TableError, match="answers: no condition 'sideways'"):
        board(given=changed(given, "condition", "blind", "sideways"))
    with pytest.raises(table_io.TableError, match="pairs name gone, which has no answers"):
        board(pairs={"tuned": "gone"})
    with pytest.raises(table_io.TableError, match="chance is kept for the baseline"):
        board(given=changed(given, "model", "base", "chance"), pairs={})
    with pytest.raises(table_io.TableError, match="set name held_in is kept for the sum"):
        board([q | {"set": "held_in"} for q in QA], given)
    with pytest.raises(table_io.TableError, match="answers of base, blind, luck: no such metric; known: accuracy, "):
        board(given=changed(given, "metric", "accuracy", "luck"))


def call(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, check=False)


def test_the_programs(tmp_path: Path) -> None:
    table_io.write_table(tmp_path / "qa.parquet", "qa", QA)
    table_io.write_table(tmp_path / "train.parquet", "qa", TRAIN)
    for model, condition in SAID:
        table_io.write_table(tmp_path / f"{model}.{condition}.parquet", "predictions", predictions(model, condition))
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
            SCRIPTS / "leaderboard.py", "--qa", tmp_path / "qa.parquet", "--train", tmp_path / "train.parquet", "--answers",
            *[tmp_path / f"scores/{m}.parquet" for m in models], "--leaderboard", out,
            "--comparisons", tmp_path / f"comparisons{run}.parquet", "--cfg", config_file(CFG),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written.append(out.read_bytes() + (tmp_path / f"comparisons{run}.parquet").read_bytes())
    assert written[0] == written[1]
    found = boards()
    for name in ("leaderboard", "comparisons"):
        assert table_io.read_table(tmp_path / f"{name}0.parquet", name).to_pylist() == getattr(found, name)


def test_a_missing_prediction_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    table_io.write_table(tmp_path / "qa.parquet", "qa", QA)
    table_io.write_table(tmp_path / "p.parquet", "predictions", predictions("base", "plain")[:-1])
    done = call(SCRIPTS / "score.py", "--qa", tmp_path / "qa.parquet", "--predictions", tmp_path / "p.parquet",
                "--answers", tmp_path / "out/a.parquet")  # fmt: skip
    assert done.returncode == 1
    assert "error: base, plain: no prediction for question o2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").iterdir())

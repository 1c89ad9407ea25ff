from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import report_run

from medmim.common.errors import TableError, UserError
from medmim.common.formatting import format_bytes
from medmim.reporting import palette
from medmim.reporting.report import page, plots
from medmim.reporting.report.board import Cell, Leaderboard, ScoredModel, read_paper_scores, sort_sets
from medmim.reporting.report.contents import REASON_GAINED, REASON_MISSED, REASON_OPEN, choose_questions, count_composition

PAIR = [ScoredModel("base", None, "base"), ScoredModel("tuned", "base", "tuned")]


def board(rows: list[dict[str, Any]]) -> Leaderboard:
    return Leaderboard(pd.DataFrame(rows))


def test_sets_are_ordered_and_unknown_ones_kept() -> None:
    assert sort_sets(["odir", "held_out", "another", "temporal", "rad"]) == ["temporal", "rad", "odir", "another", "held_out"]


def test_groups_split_held_in_from_held_out_with_the_sum_first() -> None:
    groups = board(report_run.make_leaderboard()).sets_by_sum("accuracy")
    assert groups == [
        ("held_in", ["held_in", "temporal", "reasoning", "comparison", "coreference"]),
        ("held_out", ["held_out", "rad", "odir"]),
    ]


def test_a_cell_given_twice_is_refused() -> None:
    row = report_run.make_cell("a", "rad", "accuracy", 0.5)
    with pytest.raises(TableError, match="two rows for a, rad, accuracy, closed, plain"):
        board([row, row | {"value": 0.6}])


def test_models_follow_their_bases_whatever_the_order_of_the_config() -> None:
    config = dict(sorted(report_run.MODELS.items())) | {"extra": {"family": "chat"}, "absent": {"family": "chat"}}
    rows = [
        *report_run.make_leaderboard(),
        report_run.make_cell("extra", "rad", "accuracy", 0.5),
        report_run.make_cell("new", "rad", "accuracy", 1.0),
    ]
    found = [(m.name, m.role) for m in board(rows).list_models(config)]
    assert found == [
        ("llava-med", "base"),
        ("mim-llava-med", "tuned"),
        ("mantis", "base"),
        ("med-mantis", "tuned"),
        ("extra", "other"),
        ("new", "other"),
        ("chance", "baseline"),
        ("majority", "baseline"),
    ]


def test_a_tuned_model_whose_base_was_not_scored_stands_alone() -> None:
    rows = [r for r in report_run.make_leaderboard() if r["model"] != "mantis"]
    assert [m.role for m in board(rows).list_models(report_run.MODELS) if m.name == "med-mantis"] == ["other"]


@pytest.mark.parametrize(
    ("low", "high", "direction"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.2, 0), (None, None, 0)]
)
def test_direction_of_a_difference(low: float | None, high: float | None, direction: int) -> None:
    assert Cell(0.1, low, high, 5, 5).direction == direction


RUN_MODELS = ["llava-med", "mantis", "med-mantis"]


def test_figures_of_the_paper_are_read(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    path.write_text(
        "\ufeffset;model;accuracy;note\nrad; llava-med ;45.5 %;table 2\nodir;llava-med;;\nrad;mim-llava-med;0;\n", "utf-8"
    )
    assert read_paper_scores(path, RUN_MODELS) == {("llava-med", "rad"): 0.455, ("mim-llava-med", "rad"): 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("model,set,accuracy\n", "holds no row below its header"),
        ("model,set\n", "missing columns accuracy; there are model, set"),
        ("model,set,accuracy,accuracy\na,rad,5,6\n", "2 columns are named accuracy"),
        ("model,set,accuracy\na,RAD,5\n", "row 1, column set: no set 'RAD'; there are temporal"),
        ("model,set,accuracy\na,radd,5\n", "row 1, column set: no set 'radd'; did you mean 'rad'"),
        ("model,set,accuracy\na,rad,5\na,rad,6\n", "row 2: a on rad is given twice"),
        ("model,set,accuracy\na,rad,nan\n", "row 1, column accuracy: 'nan' is not a percentage"),
        ("model,set,accuracy\na,rad,120\n", "row 1, column accuracy: '120' is not a percentage"),
        ("model;set;accuracy\na;rad;62,5\n", "row 1, column accuracy: '62,5' is not a percentage from 0 to 100, such as 62.5"),
        ("model,set,accuracy\na,odir,50\na,rad,0.62\n", "row 2, column accuracy: 0.62 is a share, .* write 62"),
        ("model,set,accuracy\na,rad,1\n", "row 1, column accuracy: 1 is a share"),
        ("model,set,accuracy\n,rad,50\n", "row 1, column model: no '' in this run"),
        ("model,set,accuracy\nMed_Mantis,rad,50\n", "row 1, column model: no 'Med_Mantis' .*; did you mean 'med-mantis'"),
        ("model,set,accuracy\nmed-mantiss,rad,50\n", "row 1, column model: no 'med-mantiss' .*; did you mean 'med-mantis'"),
        ("model,set,accuracy\na,rad\n", r"row 1 \(line 2\): has 2 cells"),
    ],
)  # fmt: skip
def test_a_wrong_row_of_the_papers_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "paper.csv").write_text(text)
    with pytest.raises(UserError, match=r"paper\.csv(, |: )" + message):
        read_paper_scores(tmp_path / "paper.csv", RUN_MODELS)


def items(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["qa_id", "task", "kind"])


def rights(frame: pd.DataFrame, base: str, tuned: str) -> dict[str, pd.Series]:
    """Accuracies from strings of 0 and 1, one character per closed question."""
    ids = frame.loc[frame["kind"] == "closed", "qa_id"]
    return {name: pd.Series([float(c) for c in text], list(ids)) for name, text in (("base", base), ("tuned", tuned))}


def test_examples_are_one_gained_one_missed_one_open_then_others() -> None:
    frame = items(("a", "t", "closed"), ("b", "t", "closed"), ("c", "u", "closed"), ("d", "u", "closed"), ("e", "t", "open"))
    right = rights(frame, "1010", "1100")
    assert choose_questions(frame, right, PAIR, 4) == [("b", REASON_GAINED), ("c", REASON_MISSED), ("e", REASON_OPEN), ("a", "")]
    assert choose_questions(frame.iloc[::-1], right, PAIR, 4) == choose_questions(frame, right, PAIR, 4)
    assert choose_questions(frame, right, PAIR, 1) == [("b", REASON_GAINED)]
    assert len(choose_questions(frame, right, PAIR, 99)) == 5


def test_examples_prefer_a_task_not_seen() -> None:
    frame = items(("a", "t", "closed"), ("b", "t", "closed"), ("c", "u", "closed"))
    assert choose_questions(frame, rights(frame, "000", "100"), PAIR, 2) == [("a", REASON_GAINED), ("c", REASON_MISSED)]


def test_examples_without_any_gain_or_miss() -> None:
    frame = items(("b", "t", "closed"), ("a", "t", "closed"))
    assert choose_questions(frame, rights(frame, "11", "11"), PAIR, 3) == [("a", ""), ("b", "")]
    assert choose_questions(frame, {}, [], 1) == [("a", "")]


def test_composition_counts() -> None:
    rows = {
        split: pd.DataFrame([report_run.make_question("temporal", n, "closed", split) for n in range(5)])
        for split in ("train", "benchmark")
    }
    rows["benchmark"] = pd.concat(
        [rows["benchmark"], pd.DataFrame([report_run.make_question("rad", 0, "open", "benchmark")])], ignore_index=True
    )
    found = count_composition(rows)
    assert [(c.set, c.closed, c.open, c.patients) for c in found.sets["benchmark"]] == [("temporal", 5, 0, 3), ("rad", 0, 1, 1)]
    assert [(t.task, t.train, t.benchmark, t.open) for t in found.tasks] == [("lumiere_typeC", 5, 5, 0), ("vqa_rad", 0, 1, 1)]
    assert found.letters == {"train": {"A": 2, "B": 2, "C": 1}, "benchmark": {"A": 2, "B": 2, "C": 1}}
    assert found.images == {"train": {2: 5}, "benchmark": {2: 6}}
    assert (found.patients, found.shared_patients) == ({"train": 3, "benchmark": 4}, 0)


def test_the_page_lists_the_files_it_was_made_from(tmp_path: Path) -> None:
    run = report_run.write_run(tmp_path)
    inputs = report_run.describe_inputs(run)
    html = page.render_report(page.ReportFiles(**run), report_run.CFG, inputs)
    origin = html[html.index('id="origin"') :]
    for name, found in inputs.items():
        assert (name.replace("_", " ") in origin) is bool(found)
        for file in found:
            assert Path(file["path"]).name in origin and file["sha256"] in origin and format_bytes(file["bytes"]) in origin
    assert tmp_path.as_posix() not in html


def test_intervals_for_people() -> None:
    assert page.format_interval(Cell(0.5, None, None, 1, 1)) == ""
    assert page.format_interval(Cell(0.5, 0.25, 0.71249, 1, 1)) == "25.0–71.2"
    assert page.format_point_interval(Cell(0.1, -0.05, 0.2, 1, 1)) == "−5.0 to +20.0"


def test_every_colour_of_a_plot_is_the_pages() -> None:
    assert palette.LIGHT.keys() == palette.DARK.keys()
    assert len(set(palette.LIGHT.values())) == len(palette.LIGHT)
    lines = page.build_figure_rows(board(report_run.make_leaderboard()), "mantis", "med-mantis")
    svg = plots.plot_comparison("med-mantis", lines)
    assert "#" not in svg.replace("url(#", "").replace('href="#', "")
    assert "var(--tuned)" in svg and "font-family" not in svg
    assert svg == plots.plot_comparison("med-mantis", lines)


def test_the_main_figure_holds_what_the_leaderboard_says() -> None:
    lines = page.build_figure_rows(board(report_run.make_leaderboard()), "mantis", "med-mantis")
    assert [(r.label, r.is_sum) for r in lines][:2] == [("Held-in", True), ("Temporal", False)]
    first = lines[0]
    assert first.tuned and first.base and first.blind and first.chance and first.majority and first.gain and first.sight
    assert (first.tuned.value, first.blind.value, first.chance.value) == (0.807, 0.31, 1 / 3)
    assert ">+51</text>" in plots.plot_comparison("x", lines)

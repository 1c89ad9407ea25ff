"""The leaderboard as papers print it."""

from typing import Any

import pandas as pd

from medmim.reporting.report.arranged import NOT_AVAILABLE, SIZE_ROW, PaperTable, build_paper_tables

SETS = ("temporal", "held_in", "rad", "held_out", "medframeqa")
VALUES = {"a_b": 0.5, "tuned": 0.625, "chance": 0.25}


def board(clean: int = 50) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for model, value in VALUES.items():
        for name in SETS:
            interval = {"ci_low": None, "ci_high": None} if model == "chance" else {"ci_low": 0.4, "ci_high": 0.75}
            common = {"model": model, "set": name, "condition": "plain", "value": value, "n_patients": 20, **interval}
            rows += [common | {"kind": "closed", "metric": "accuracy", "part": "all", "n": 50}]
            rows += [common | {"kind": "closed", "metric": "accuracy", "part": "clean", "n": clean}]
            rows += [common | {"kind": "open", "metric": "token_f1", "part": "all", "n": 120 if name == "rad" else 20}]
            rows += [
                common | {"kind": "closed", "metric": "accuracy", "part": "all", "n": 50, "condition": "blind", "value": 0.9}
            ]
    return pd.DataFrame(rows)


def made(clean: int = 50) -> list[PaperTable]:
    behind = [{"model": "a_b", "weights": "Some_One/a~b & c", "files": "0" * 12}]
    return build_paper_tables(
        board(clean),
        ["a_b", "tuned"],
        paper={("tuned", "rad"): 0.7},
        min_open_items=100,
        provenance_rows=behind,
        set_labels={"medframeqa": "MedFrameQA"},
    )


def test_sets_stand_in_the_order_of_the_paper_further_ones_last() -> None:
    closed = made()[0].cells
    assert list(closed.columns) == [
        ("Held-in", "Temporal"), ("Held-in", "all"), ("Held-out", "RAD"), ("Held-out", "all"), ("Held-out", "MedFrameQA"),
    ]  # fmt: skip
    assert list(closed.index) == [SIZE_ROW, "a_b", "a_b, in the paper", "tuned", "tuned, in the paper", "chance"]


def test_cells_have_their_interval_and_the_papers_figure_below() -> None:
    closed = made()[0].cells
    rad = closed[("Held-out", "RAD")]
    assert rad[SIZE_ROW] == "50 / 20" and rad["tuned"] == "62.5 (40.0–75.0)" and rad["chance"] == "25.0"
    assert rad["tuned, in the paper"] == "70.0" and rad["a_b, in the paper"] == NOT_AVAILABLE
    assert (closed.loc["tuned, in the paper"] == NOT_AVAILABLE).sum() == len(SETS) - 1


def test_the_best_is_bold_where_there_are_enough_questions() -> None:
    closed, _, opened, _ = made()
    assert closed.bold is not None and opened.bold is not None
    assert closed.bold.loc["tuned"].all() and not closed.bold.drop("tuned").any(axis=None)
    assert opened.bold.loc["tuned"].tolist() == [name == "rad" for name in SETS]


def test_the_part_without_leakage_says_whether_it_is_all() -> None:
    assert "so this is the whole of it" in made()[1].note
    assert "Only questions that share neither" in made(clean=40)[1].note
    assert made(clean=40)[1].cells.loc[SIZE_ROW].tolist() == ["40 / 20"] * len(SETS)


def test_latex_is_booktabs_and_escaped() -> None:
    closed, *_, behind = (table.to_latex() for table in made())
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\multicolumn{2}{c}{Held-in}", r"\textbf{62.5 (40.0--75.0)}"):
        assert rule in closed
    assert r"a\_b, in the paper & not available" in closed and r"95 \% intervals" in closed
    assert r"Some\_One/a\textasciitilde b \& c" in behind or r"Some\_One/a\textasciitilde{}b \& c" in behind
    body = closed[closed.index(r"\midrule") : closed.index(r"\bottomrule")]
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {len(SETS)}


def test_markdown_tables_are_whole_and_escaped() -> None:
    closed, *_, behind = (table.to_markdown() for table in made())
    assert {line.count("|") for line in closed.splitlines() if line.startswith("|")} == {len(SETS) + 2}
    assert "**62.5 (40.0–75.0)**" in closed and "## Closed questions" in closed
    assert r"Some\_One/a~b & c" in behind and r"a\_b" in closed

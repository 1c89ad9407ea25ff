"""LUMIERE in its owner's layout, read as `local` reads it, to questions whose golds are those of its table."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from qa_made import DEFAULT_CFG

import lumiere_made
from config_files import config_file
from medmim.config.source_plugins import SOURCES
from medmim.sources.base import TableBuilder
from medmim.sources.lumiere import adapter
from medmim.tables import table_io

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow/scripts"
RESPONSE_TEXTS = {"PD": "progressive disease", "SD": "stable disease", "PR": "partial response", "CR": "complete response"}


def run_script(name: str, cfg: dict[str, Any], *options: object) -> str:
    """Run a program of the pipeline; returns what it says."""
    command = [sys.executable, str(SCRIPTS / name), *map(str, options), "--cfg", config_file(cfg)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lumiere_made.write_folder(tmp_path_factory.mktemp("lumiere") / "LUMIERE")


@pytest.fixture(scope="module")
def build(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build the images of the folder; returns where the tables are."""
    index = tmp_path_factory.mktemp("index") / "lumiere.parquet"
    run_script("index_files.py", {}, "--root", folder, "--index", index)

    def run(*options: object) -> Path:
        out = tmp_path_factory.mktemp("out")
        tables = [o for n in ("images", "findings", "rejected") for o in (f"--{n}", out / f"{n}.parquet")]
        run_script("build_images.py", {"size": 64}, "--source", "lumiere", "--root", folder, "--raw", index, *tables, *options)
        return out

    return run


def read_golds(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(rating, rationale) by patient and week, of the table as it is on disk."""
    with (folder / lumiere_made.RATINGS_FILE).open(encoding="utf-8-sig", newline="") as file:
        return {(row[0], row[1].removeprefix("week-")): (row[4].strip(), row[5].strip()) for row in csv.reader(file)}


def test_local_folder_to_questions(folder: Path, build: Callable[..., Path]) -> None:
    out = build()
    cfg = DEFAULT_CFG | {"open_fraction": 0.0, "sets": SOURCES["lumiere"].list_sets()}
    tables = ("--images", out / "images.parquet", "--findings", out / "findings.parquet", "--qa", out / "qa.parquet")
    run_script("generate_qa.py", cfg, "--source", "lumiere", *tables)
    images = table_io.read_frame(out / "images.parquet", "images").set_index("image_id")
    golds = read_golds(folder)
    asked: dict[str, set[tuple[str, str, str]]] = {"lumiere_typeB": set(), "lumiere_typeC": set()}
    for row in table_io.read_table(out / "qa.parquet", "qa").to_pylist():
        shown = images.loc[row["image_ids"]]
        slices = {path.split("/")[2] for path in shown["release_path"]}
        assert len(slices) == 1, "all images of a question show one slice"
        if row["task"] not in asked:
            assert row["task"] == "lumiere_typeA"
            continue
        assert set(shown["view"]) == {"CT1"}
        (patient, first), (_, second) = (study.removeprefix("lumiere/").split("/week-") for study in shown["study_id"])
        asked[row["task"]].add((patient, first, second))
        rating, rationale = golds[patient, second]
        if row["task"] == "lumiere_typeC":
            assert row["answer"] == RESPONSE_TEXTS[rating]
        else:
            assert row["answer"].startswith("complete" if "CRET" in rationale else "partial")
            assert golds[patient, first][0] == "Pre-Op"
            assert rating.startswith("Post-Op")
    assert asked["lumiere_typeB"] <= lumiere_made.OPERATIONS
    assert asked["lumiere_typeC"] <= lumiere_made.RESPONSES
    assert sum(map(len, asked.values())) >= 10, "few golds are thinned out"
    rejected = table_io.read_frame(out / "rejected.parquet", "rejected")
    assert set(rejected["item"]) == {
        "Imaging/Patient-003/week-052",
        f"{lumiere_made.RATINGS_FILE} row 24",
        f"{lumiere_made.RATINGS_FILE} row 29",
    }


def test_everything_that_rano_supports_is_stated(folder: Path) -> None:
    """Before golds are evened: exactly the pairs that the course has by hand."""
    from medmim.questions.cohort import build_cohort
    from medmim.sources.lumiere.questions import build_facts

    builder = TableBuilder("lumiere", folder, adapter.read_contents(folder), 64)
    images = table_io.build_table("images", list(builder.iter_image_rows())).to_pandas()
    findings = table_io.build_table("findings", builder.list_finding_rows()).to_pandas()
    pairs: dict[str, set[tuple[str, str, str]]] = {}
    for fact in build_facts(build_cohort(images, findings)):
        if fact.template.task != "lumiere_typeA":
            (patient, first), (_, second) = (i.study_id.removeprefix("lumiere/").split("/week-") for i in fact.images)
            pairs.setdefault(fact.template.task, set()).add((patient, first, second))
            assert fact.findings and all(fact.findings)
    assert pairs == {"lumiere_typeB": lumiere_made.OPERATIONS, "lumiere_typeC": lumiere_made.RESPONSES}
    progressions = findings[findings["name"] == "progression"]
    assert set(progressions["study_id"]) == {"lumiere/Patient-001/week-045"}


def test_slices_that_the_release_names_are_added(folder: Path, build: Callable[..., Path], tmp_path: Path) -> None:
    prefix = "LUMIERE_images_tumor1200px_256x256/Patient-001"
    present = {f"ct1_{prefix}/slice_{n}/week_{w}.png" for n in (7, 8, 9, 12) for w in ("000-1", "013")}
    present |= {f"flair_{prefix}/slice_11/week_049.png"}
    absent = {
        f"ct1_{prefix}/slice_8/week_000.png": f"there is no {lumiere_made.MASK} of Patient-001, week-000",
        f"ct1_{prefix}/slice_24/week_013.png": "the visit's grid has 24 coronal slices",
        f"dwi_{prefix}/slice_9/week_013.png": "sequence dwi is not one of CT1, T1, T2, FLAIR",
    }
    others = {"p10/p1/s1/x.png", "Training Images/1_left.jpg"}
    named = tmp_path / "train.parquet"
    row = {c.name: None for c in table_io.table_columns("qa")} | released_row(sorted({*present, *absent, *others}))
    table_io.write_table(named, "qa", [row])
    out = build("--named", named)
    images = table_io.read_frame(out / "images.parquet", "images")
    assert present == set(images["release_path"]), "no picture is read that the release does not name"
    assert len(set(images["release_path"])) == len(images)
    reasons = table_io.read_frame(out / "rejected.parquet", "rejected").set_index("item")["reason"].to_dict()
    assert {path: f"named by the release: {reason}" for path, reason in absent.items()}.items() <= reasons.items()
    assert not set(reasons) & others
    # the slice named is the one shown: a ball of 5 voxels is cut in discs of 69, 69, 81 and, three slices away, 49 pixels
    areas = pd.Series(images["image_id"].values, index=images["release_path"])
    findings = table_io.read_frame(out / "findings.parquet", "findings")
    area_by_image = findings[findings["name"] == "enhancing_mm2"].set_index("image_id")["value"]
    measured = [area_by_image[areas[f"ct1_{prefix}/slice_{n}/week_000-1.png"]] for n in (7, 8, 9, 12)]
    assert measured == ["276", "276", "324", "196"]


def released_row(paths: list[str]) -> dict[str, Any]:
    """A question of the release about images of these paths."""
    from medmim.questions.row import question_row

    return question_row(
        split="train", ability="comparison", set="comparison", task="typeB", text="What changed?", options=[], answer="Nothing.",
        answer_index=None, image_ids=[f"release/{path}" for path in paths], patient_ids=["lumiere/Patient-001"] * len(paths),
        source="lumiere", generator="released/0", findings=(),
    )  # fmt: skip

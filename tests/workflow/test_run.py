"""What a finished run leaves behind: complete, repeatable, auditable. Nothing is learned in a mini run."""

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import release_made
import yaml
from test_dag import jobs

import heldout_made
from medmim.provenance.audit import UNTRACKED_NAMES, audit_run
from medmim.reporting import lineage
from medmim.tables import table_io
from medmim.tables.data_policy import DataPolicy
from runs import MINI, find_faults, list_snakemake_logs

RESULTS = "results/mini"
MODELS = {"mantis", "med-mantis", "llava-med", "mim-llava-med", "chance", "majority"}
SETS = {"temporal", "reasoning", "comparison", "coreference", "rad", "odir", "held_in", "held_out"}


def test_the_leaderboard_has_every_model_set_and_condition(mini: Path) -> None:
    board = table_io.read_frame(mini / RESULTS / "leaderboard.parquet", "leaderboard")
    assert set(board.model) == MODELS
    assert set(board.set) == SETS
    assert set(board.kind) == {"closed", "open"}
    accuracy = board[(board.metric == "accuracy") & (board.kind == "closed")]
    for model in MODELS - {"chance", "majority"}:
        for condition in ("plain", "blind"):
            assert set(accuracy[(accuracy.model == model) & (accuracy.condition == condition)].set) == SETS
    assert accuracy.value.between(0, 1).all()


def test_a_second_run_has_nothing_to_do(snakemake, mini: Path) -> None:
    assert "Nothing to be done" in snakemake(mini, "--configfile", MINI, "--cores", "2").stderr


def test_every_artifact_has_its_provenance(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mini)
    assert find_faults(mini, [Path(RESULTS, "leaderboard.parquet"), Path(RESULTS, "report.html")]) == []
    record = json.loads(Path(RESULTS, "leaderboard.parquet.prov.json").read_text())
    assert {e["path"] for e in record["inputs"]["answers"]} == {
        f"{RESULTS}/scores/{m}.parquet" for m in MODELS - {"chance", "majority"}
    }
    assert record["code"]["modules"].keys() >= {"scripts/leaderboard.py", "medmim.tables.table_io"}
    assert "pyarrow" in record["code"]["packages"] and "torch" not in record["code"]["packages"]


def test_what_the_run_cost_is_told_of_every_job(mini: Path) -> None:
    costs = table_io.read_frame(mini / RESULTS / "costs.parquet", "costs")
    made = {path.name.removesuffix(".log") for path in (mini / RESULTS / "logs").glob("*.log")} - {"audit", "crate"}
    assert {f"{rule}.{job}".rstrip(".") for rule, job in zip(costs["rule"], costs["job"], strict=True)} >= made
    assert (costs["outcome"] == "done").all() and (costs["run_seconds"] > 0).all() and (costs["memory_mb"] > 50).all()
    assert "build_images" in (mini / RESULTS / "costs.html").read_text()


def test_a_changed_byte_of_any_artifact_is_named(mini: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(mini / RESULTS, tmp_path / RESULTS, symlinks=True)
    monkeypatch.chdir(tmp_path)
    paths = [
        p for p in sorted(Path(RESULTS).rglob("*")) if p.is_file() and p.relative_to(RESULTS).parts[0] not in UNTRACKED_NAMES
    ]
    paths = [p for p in paths if not p.name.endswith(".prov.json")]
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    named = {f["path"] for f in audit_run(Path(RESULTS))["faults"] if f["kind"] == "altered"}
    own = {str(p) for p in paths if p.name == "files.parquet"}  # its files can't be looked up where an index is damaged
    assert own <= named
    assert {str(p) for p in paths if not any(p.is_relative_to(Path(o).parent) for o in own)} <= named


def test_the_audit_rule_fails_naming_the_file(snakemake, mini: Path) -> None:
    snakemake(mini, "audit", "--configfile", MINI)
    board = mini / RESULTS / "leaderboard.parquet"
    whole = board.read_bytes()
    try:
        board.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        done = snakemake(mini, "audit", "--configfile", MINI, ok=False)
        assert f"altered: {RESULTS}/leaderboard.parquet" in done.stderr
    finally:
        board.write_bytes(whole)


def test_no_patient_or_image_of_the_benchmark_is_in_training(mini: Path) -> None:
    parts = {p: table_io.read_frame(mini / RESULTS / f"qa/{p}.parquet", "qa") for p in ("train", "benchmark", "pretrain")}
    for column in ("patient_ids", "image_ids"):
        values = {p: set(x for row in frame[column] for x in row) for p, frame in parts.items()}
        assert values["benchmark"] and not values["benchmark"] & (values["train"] | values["pretrain"])


def test_the_report_says_that_it_is_synthetic(mini: Path) -> None:
    page = (mini / RESULTS / "report.html").read_text()
    assert "synthetic" in page.lower()
    assert all(model in page for model in MODELS)


def list_release_paths(run: Path) -> dict[str, list[str]]:
    """Paths by which the release would name images of each source: of LUMIERE slices beside those that the run shows."""
    paths = {}
    for source in ("embed", "lumiere", "ms_cxr_t", "pmc", "vqa_rad", "odir"):
        images = table_io.read_frame(run / f"images/{source}.images.parquet", "images", ["release_path", "study_id"])
        paths[source] = images.release_path.tolist()
        if source == "pmc":  # of which only released questions say a path
            paths[source] = [f"images/{study.removeprefix('pmc/')}.jpg" for study in images.study_id]
    paths["lumiere"] = [re.sub(r"slice_(\d+)", lambda m: f"slice_{int(m[1]) + 1}", path) for path in paths["lumiere"]]
    return paths


@pytest.fixture(scope="module")
def released(snakemake, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a run on a release as GitHub zips it, whose questions are about the phantoms of all sources.

    One question of each split names an image that no source has.
    """
    folder = tmp_path_factory.mktemp("released")
    shutil.copytree(mini / "results/.cache", folder / "cache", copy_function=os.link)
    paths = list_release_paths(mini / RESULTS)
    paths["embed"][0] = "cohort_1/1/2/3/4.png"
    paths["ms_cxr_t"][4] = "p10/p10999999/s59999999/0-0.png"  # of training: the benchmark takes the four before
    release_made.write_release(folder / "Med-MIM", paths, questions=2)
    shutil.make_archive(str(folder / "Med-MIM-main"), "zip", folder, "Med-MIM")
    values = yaml.safe_load(MINI.read_text())
    values["qa"] |= {"origin": "released", "pretrain": 0}
    values["qa"]["release"] = {"path": str(folder / "Med-MIM-main.zip"), "max_missing_images": 0.2}
    values["models"] = {
        "llava-med": {"family": "llava-med", "path": str(mini / RESULTS / "models/llava-med")},
        "mim-llava-med": values["models"]["mim-llava-med"],
    }
    (folder / "released.yaml").write_text(yaml.safe_dump(values))
    snakemake(folder, "--configfile", folder / "released.yaml", "--cores", "2", MEDMIM_CACHE=str(folder / "cache"))
    return folder


def test_released_questions_run_through_the_same_rules(released: Path) -> None:
    """Every image that the release names is found in its source, also where the source's adapter would not choose it."""
    run = released / RESULTS
    board = table_io.read_frame(run / "leaderboard.parquet", "leaderboard")
    plain = board[(board.part == "all") & (board.model == "mim-llava-med") & (board.metric == "accuracy")]
    plain = plain[(plain.condition == "plain") & (plain.kind == "closed")]
    sets = {"temporal": 2, "reasoning": 1, "comparison": 2, "coreference": 2, "rad": 2, "odir": 2}
    assert {name: plain[plain.set == name].n.tolist() for name in sets} == {name: [n] for name, n in sets.items()}
    published = {Path(name).name for name in release_made.RELEASE_SETS if "benchmark" in name}
    assert json.loads((run / "benchmark_audit.json").read_text()).keys() == published | sets.keys()
    questions = {s: table_io.read_table(run / f"qa/{s}.parquet", "qa").to_pylist() for s in ("train", "benchmark")}
    assert {s: len(rows) for s, rows in questions.items()} == {"train": 3, "benchmark": 11}
    for row in (row for rows in questions.values() for row in rows):
        images = table_io.read_frame(run / f"images/{row['source']}.images.parquet", "images")
        shown = images[images.image_id.isin(row["image_ids"])]
        assert row["patient_ids"] == sorted(set(shown.patient_id)) and len(shown) == len(set(row["image_ids"]))
    assert find_faults(released, [Path(RESULTS, "leaderboard.parquet")]) == []


def test_released_questions_without_their_images_are_listed(released: Path) -> None:
    rejected = table_io.read_frame(released / RESULTS / "qa/rejected.parquet", "rejected")
    assert sorted(rejected.item.str.split().str[0]) == ["benchmark", "train"]
    assert sorted(rejected.reason) == [
        f"its file is not in this copy of the source (image '{path}')"
        for path in ("cohort_1/1/2/3/4.png", "p10/p10999999/s59999999/0-0.png")
    ]
    assert {p.name for p in released.iterdir()} == {
        "Med-MIM",
        "Med-MIM-main.zip",
        "cache",
        "released.yaml",
        "results",
        ".snakemake",
    }


def test_the_release_is_audited_beside_generated_questions(snakemake, mini: Path, release_files: Path, tmp_path: Path) -> None:
    shutil.copytree(mini / "results/.cache", tmp_path / "cache", copy_function=os.link)
    values = yaml.safe_load(MINI.read_text())
    values["qa"]["release"] = {"path": str(release_files)}
    config = tmp_path / "beside.yaml"
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    target = Path(RESULTS, "benchmark_audit.json")
    snakemake(tmp_path, target, "--configfile", config, "--cores", "2", MEDMIM_CACHE=str(tmp_path / "cache"))
    assert jobs(list_snakemake_logs(tmp_path)[-1].read_text()) == {"fetch_release": 1, "audit_benchmark": 1}
    ours = json.loads((mini / target).read_text())
    found = json.loads((tmp_path / target).read_text())
    theirs = found.keys() - ours.keys()
    assert found == ours | {name: found[name] for name in theirs}
    assert found["Med_MIM_benchmark_Held_in_Comparison.json"]["shares_patient_with_train"] == 234
    statistics = table_io.read_frame(tmp_path / RESULTS / "statistics.parquet", "statistics")
    assert set(zip(statistics.origin, statistics.split, strict=True)) == {
        (o, s) for o in ("ours", "release") for s in ("train", "benchmark")
    }
    assert find_faults(tmp_path, [target]) == []


@pytest.fixture(scope="module")
def with_further_sets(snakemake, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a run with two further held-out sets, exported; what it has of the mini run comes from its cache."""
    folder = tmp_path_factory.mktemp("further")
    shutil.copytree(mini / "results/.cache", folder / "cache", copy_function=os.link)
    videos = [heldout_made.make_video_question(n, question="Which image shows the lesion?") for n in range(4)]
    exams = [heldout_made.make_exam_question(n, images) for n, images in enumerate((2, 1, 3, 2))]
    heldout_made.write_medframeqa(folder / "data/medframeqa", videos)
    heldout_made.write_medxpertqa(folder / "data/medxpertqa", exams)
    values = yaml.safe_load(MINI.read_text())
    values["heldout"] = {name: {"path": f"data/{name}"} for name in ("medframeqa", "medxpertqa")}
    values["models"] = {name: values["models"][name] for name in ("mantis", "med-mantis")}
    values["prediction"]["conditions"] = ["plain"]
    config = folder / "further.yaml"
    config.write_text(yaml.safe_dump(values, sort_keys=False))  # the sources' order is that in which their tables are read
    arguments = ("all", "export", "--configfile", config, "--cores", "2")
    said = snakemake(folder, *arguments, MEDMIM_CACHE=str(folder / "cache")).stderr
    assert "tune med-mantis: not made yet: taken from the cache" in said
    return folder


def test_further_held_out_sets_reach_the_leaderboard(with_further_sets: Path) -> None:
    results = with_further_sets / RESULTS
    board = table_io.read_frame(results / "leaderboard.parquet", "leaderboard")
    cells = board[(board.metric == "accuracy") & (board.model == "med-mantis") & (board.part == "all")].set_index("set")
    assert set(cells.index) == SETS | {"medframeqa", "medxpertqa"}
    assert cells.n[["medframeqa", "medxpertqa"]].tolist() == [4, 3]  # one exam question shows a single image
    assert cells.n["held_out"] == cells.n["rad"] + cells.n["odir"]
    counts = json.loads((results / "benchmark_audit.json").read_text())
    assert {name: counts[name]["shares_image_with_train"] for name in ("medframeqa", "medxpertqa")} == {
        "medframeqa": 0,
        "medxpertqa": 0,
    }
    assert "MedXpertQA MM" in (results / "report.html").read_text()
    for made in ("predictions/med-mantis.parquet", "export/hf/files.parquet"):
        assert DataPolicy.from_table(results / made).licences >= {"synthetic", "cc-by-4.0"}
    assert find_faults(with_further_sets, [Path(RESULTS, "leaderboard.parquet"), Path(RESULTS, "export/hf/files.parquet")]) == []


def test_a_further_set_is_traced_to_its_files_and_to_nothing_else(with_further_sets: Path) -> None:
    results = with_further_sets / RESULTS
    found = lineage.trace_cell(results, "med-mantis", "medframeqa", "accuracy")
    assert found["sets"] == ["medframeqa"] and found["sources"] == {"medframeqa": 4} and len(found["items"]) == 4
    rests = set(found["nodes"])
    assert {"qa/heldout/medframeqa.parquet", "images/medframeqa.images.parquet", "sources/medframeqa.parquet"} <= rests
    assert not {name for name in rests if "medxpertqa" in name} and "qa/benchmark.parquet" not in rests
    assert "medframeqa" not in lineage.trace_cell(results, "med-mantis", "held_in", "accuracy")["sets"]
    rests = set(lineage.trace_cell(results, "med-mantis", "odir", "accuracy")["nodes"])
    assert "qa/benchmark.parquet" in rests and not {name for name in rests if "medframeqa" in name or "medxpertqa" in name}
    asked = lineage.trace_question(results, str(found["items"][0]["qa_id"]))
    assert asked["splits"] == ["benchmark"] and len(asked["replies"]) == 2
    assert all(image["origin_file"].startswith("data/test-0000") and image["index_sha256"] for image in asked["images"])


def test_every_tool_gets_all_questions(with_further_sets: Path) -> None:
    export = with_further_sets / RESULTS / "export"
    benchmark = table_io.read_frame(with_further_sets / RESULTS / "qa/benchmark.heldout.parquet", "qa")
    parts = [pd.read_csv(path, sep="\t") for path in (export / "vlmevalkit").glob("*.tsv")]
    assert sorted(pd.concat(parts).qa_id) == sorted(benchmark.qa_id)
    for folder in ("hf", "lmms-eval"):
        held = [
            q for path in (export / folder / "data").glob("*.parquet") for q in pd.read_parquet(path, columns=["qa_id"]).qa_id
        ]
        assert sorted(held) == sorted(benchmark.qa_id)
    train = table_io.read_frame(with_further_sets / RESULTS / "qa/train.parquet", "qa")
    parts = [pd.read_parquet(path, columns=["qa_id"]) for path in (export / "instructions/data").glob("*.parquet")]
    assert sorted(pd.concat(parts).qa_id) == sorted(train.qa_id)

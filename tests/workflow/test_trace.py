"""Trace: a cell of the leaderboard leads to the raw files, a question to all that is known of it, and to nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medmim.common import files
from medmim.common.errors import SidecarError, UserError
from medmim.provenance import job_record
from medmim.reporting import lineage
from medmim.tables import table_io

PROGRAM = Path(__file__).parents[2] / "workflow/scripts/trace.py"
TRAINING = {"embed", "lumiere", "ms_cxr_t", "pmc"}  # sources of the training questions in mini.yaml
NEVER = ("*.jpg", "*.png", "*.dcm", "*.nii.gz", "*.tar.gz", "*.csv", "*.json", "*.safetensors", "*.pixels.parquet", "logs")


@pytest.fixture
def run(mini: Path) -> Path:
    """Folder of a finished run, to be left as it is."""
    return mini / "results/mini"


def copy(run: Path, to: Path, *ignored: str) -> Path:
    """A copy that may be changed, without what trace never reads (sidecars are copied)."""

    def ignore(_: str, names: list[str]) -> set[str]:
        left_out = shutil.ignore_patterns(*NEVER, *ignored)(_, names)
        return {name for name in left_out if not name.endswith(files.SIDECAR_SUFFIX)}

    return Path(shutil.copytree(run, to, ignore=ignore))


def call(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
    command = [sys.executable, PROGRAM, "--results", run, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def named(nodes: dict[str, Any], folder: str) -> set[str]:
    return {name.removeprefix(f"{folder}/").split(".")[0] for name in nodes if name.startswith(f"{folder}/")}


def ids(run: Path, split: str, **where: str) -> list[str]:
    rows = table_io.read_table(run / f"qa/{split}.parquet", "qa").to_pylist()
    return [row["qa_id"] for row in rows if all(row[k] == v for k, v in where.items())]


def blank_images(run: Path) -> int:
    """Overwrite the stored bytes of every image with zeros, so that they can't be read; how many bytes that were."""
    count = 0
    for path in run.glob("images/*.images.parquet"):
        meta = pq.read_metadata(path)
        with path.open("r+b") as f:
            for group in range(meta.num_row_groups):
                column = meta.row_group(group).column(meta.schema.names.index("bytes"))
                f.seek(column.data_page_offset)
                count += f.write(b"\0" * column.total_compressed_size)
        with pytest.raises(OSError):
            pq.read_table(path, columns=["bytes"])
    return count


def test_cell_rests_on_its_own_jobs_down_to_the_raw_files(run: Path) -> None:
    found = lineage.trace_cell(run, "med-mantis", "odir", "accuracy")
    nodes = found["nodes"]
    assert next(iter(nodes)) == "leaderboard.parquet"
    assert found["sources"] == {"odir": len(ids(run, "benchmark", set="odir", kind="closed"))}
    assert named(nodes, "scores") == {"med-mantis"}
    assert {n for n in nodes if n.startswith("predictions/")} == {"predictions/med-mantis.parquet"}
    assert {n for n in nodes if n.startswith("models/")} == {"models/mantis/files.parquet", "models/med-mantis/files.parquet"}
    compared = {"odir", "vqa_rad"}  # odir is asked about; no copy of an image of either is in training
    assert named(nodes, "raw") == {f"{source}/files" for source in TRAINING | compared}
    assert set(nodes["qa/benchmark.parquet"]["inputs"]) == {"qa/odir.parquet"}
    assert set(nodes["qa/train.parquet"]["inputs"]) == {"qa/copies.parquet", *(f"qa/{source}.parquet" for source in TRAINING)}
    plain = nodes["predictions/med-mantis.parquet"]["inputs"]
    assert {n for n in plain if n.startswith("images/")} == {"images/odir.images.parquet"}
    assert not any("llava" in name for name in nodes)
    for name, node in nodes.items():
        assert node["sha256"] == files.hash_file(run / name), name
        assert all(nodes[file]["sha256"] == read for file, read in node["inputs"].items()), name
        assert bool(node["inputs"]) is not name.startswith("raw/"), name
        record = job_record.read_record(job_record.sidecar_path(run / name))
        assert (node["program"], node["summary"], node["end"]) == (record["program"], record["summary"], record["end"])
        assert (node["code"], node["commit"]) == (record["code"]["sha256"], record["git"]["commit"])
        assert node["restored"] == record.get("restored")
    assert nodes["raw/odir/files.parquet"]["folder"]["files"] == len(table_io.read_table(run / "raw/odir/files.parquet", "files"))


@pytest.mark.parametrize(
    ("cell", "asked", "sides"),
    [
        (("mim-llava-med", "temporal", "accuracy"), {}, {"mim-llava-med.plain"}),
        (("mim-llava-med", "temporal", "accuracy"), {"condition": "blind"}, {"mim-llava-med.blind"}),
        (("mim-llava-med", "temporal", "accuracy_minus_base"), {}, {"mim-llava-med.plain", "llava-med.plain"}),
        (("mim-llava-med", "rad", "accuracy_minus_blind"), {}, {"mim-llava-med.plain", "mim-llava-med.blind"}),
        (("mantis", "held_in", "loglikelihood_accuracy"), {"kind": "closed"}, {"mantis.plain"}),
        (("mantis", "held_out", "token_f1"), {"kind": "open"}, {"mantis.plain"}),
        (("llava-med", "odir", "unparsed_rate"), {}, {"llava-med.plain"}),
        (("chance", "held_in", "accuracy"), {}, set()),
        (("majority", "rad", "accuracy"), {}, set()),
    ],
)
def test_every_cell_is_the_mean_of_its_items(run: Path, cell: Any, asked: dict[str, str], sides: set[str]) -> None:
    model, _, metric = cell
    found = lineage.trace_cell(run, *cell, **asked)
    row = found["cells"][0]
    assert [row] == [
        r
        for r in table_io.read_table(run / "leaderboard.parquet", "leaderboard").to_pylist()
        if (r["model"], r["set"], r["metric"], r["condition"], r["part"]) == (*cell, asked.get("condition", "plain"), "all")
    ]
    assert {f"{i['model']}.{i['condition']}" for i in found["items"]} == sides
    assert {n for n in found["nodes"] if n.startswith("predictions/")} == {
        f"predictions/{side.rpartition('.')[0]}.parquet" for side in sides
    }
    assert sum(found["sources"].values()) == row["n"]
    assert len(found["items"]) == row["n"] * len(sides)
    if sides:
        rate = metric.removesuffix("_rate") if metric.endswith("_rate") else None
        total = 0.0
        for item in found["items"]:
            own = (item["model"], item["condition"]) == (model, row["condition"])
            total += (item["value"] if rate is None else item["status"] == rate) * (1 if own else -1)
        assert total / row["n"] == pytest.approx(row["value"], abs=1e-9)
    else:
        assert set(found["nodes"]["leaderboard.parquet"]["inputs"]) == {"qa/benchmark.parquet"}
        assert not any(name.startswith(("models/", "shards/")) for name in found["nodes"])


def test_blind_replies_rest_on_no_image(run: Path) -> None:
    nodes = lineage.trace_cell(run, "mantis", "odir", "accuracy", condition="blind")["nodes"]
    assert set(nodes["predictions/mantis.parquet"]["inputs"]) == {"models/mantis/files.parquet", "qa/benchmark.parquet"}
    assert "qa/odir.parquet" in nodes  # the questions still come from the source


def test_question_of_the_benchmark(mini: Path, run: Path) -> None:
    name = ids(run, "benchmark", source="embed", kind="closed")[0]
    found = lineage.trace_question(run, name[:8].upper())
    asked = found["question"]
    stored = next(r for r in table_io.read_table(run / "qa/benchmark.parquet", "qa").to_pylist() if r["qa_id"] == name)
    assert (asked | {"split": "benchmark"}, found["splits"], found["shards"]) == (stored, ["benchmark"], [])
    assert [row["finding_id"] for row in found["findings"]] == stored["findings"]
    for row in found["findings"]:
        table = run / "raw/embed" / row["origin_file"]
        assert row["file_sha256"] == files.hash_file(table)
        assert row["value"] in table.read_text().splitlines()[row["origin_row"]]
    assert [row["image_id"] for row in found["images"]] == stored["image_ids"]
    for row in found["images"]:
        assert row["agrees"] is True
        assert row["origin_sha256"] == row["index_sha256"] == files.hash_file(run / "raw/embed" / row["origin_file"])
        assert "bytes" not in row
    models = ["llava-med", "mantis", "med-mantis", "mim-llava-med"]
    assert [(r["model"], r["condition"]) for r in found["replies"]] == [(m, c) for m in models for c in ("plain", "blind")]
    for reply in found["replies"]:
        answers = table_io.read_table(run / f"scores/{reply['model']}.parquet", "answers").to_pylist()
        told = [(a["metric"], a["value"], a["status"], a["read"]) for a in answers
                if (a["qa_id"], a["condition"]) == (name, reply["condition"])]  # fmt: skip
        assert told and [(s["metric"], s["value"], s["status"], s["read"]) for s in reply["scores"]] == told


def test_question_of_training_names_its_shards_and_archives(run: Path) -> None:
    name = ids(run, "train", source="pmc")[0]
    found = lineage.trace_question(run, name)
    assert (found["splits"], found["replies"]) == (["train"], [])
    assert {(s["file"], *s["models"]) for s in found["shards"]} == {
        ("shards/llava-med/train.samples.parquet", "mim-llava-med"),
        ("shards/mantis/train.samples.parquet", "med-mantis"),
    }
    for shard in found["shards"]:
        sample = table_io.read_table(run / shard["file"], "samples").slice(shard["row"], 1).to_pylist()[0]
        assert (sample["qa_id"], sample["length"]) == (name, shard["length"])
    for image in found["images"]:
        archive = run / "raw/pmc" / image["origin_file"].partition("!")[0]
        assert image["agrees"] is None and image["index_sha256"] == files.hash_file(archive)


def test_questions_of_the_release_name_images_by_path(run: Path, tmp_path: Path) -> None:
    mine = copy(run, tmp_path / "run")
    rows = table_io.read_table(mine / "qa/benchmark.parquet", "qa").to_pylist()
    row = next(r for r in rows if r["source"] == "lumiere")
    whole = lineage.trace_question(run, row["qa_id"])["images"]
    row["image_ids"] = [f"release/{image['release_path']}" for image in whole[1:]] + ["release/gone.png"]
    table_io.write_table(mine / "qa/benchmark.parquet", "qa", rows)
    found = lineage.trace_question(mine, row["qa_id"])["images"]
    assert [i.get("image_id") for i in found] == [i["image_id"] for i in whole[1:]] + [None]
    assert "release/gone.png, in no images table" in call(mine, "--qa-id", row["qa_id"]).stdout


def test_reads_only_what_it_needs(run: Path, tmp_path: Path) -> None:
    """Without raw files, weights, pixels, images' bytes and other models' tables the answers are the same."""
    others = ("*llava*", "mantis.parquet", "report.html", "replies")
    mine = copy(run, tmp_path / "cell", *others)
    for path in mine.rglob(f"*llava*{files.SIDECAR_SUFFIX}"):
        path.unlink()
    assert blank_images(mine) > 100_000
    cell = ("med-mantis", "temporal", "accuracy")
    assert lineage.trace_cell(mine, *cell) == lineage.trace_cell(run, *cell)

    mine = copy(run, tmp_path / "question", "leaderboard.parquet", "*.samples.parquet", "embed*")
    assert blank_images(mine) > 100_000
    name = ids(run, "benchmark", source="lumiere")[0]
    assert lineage.trace_question(mine, name) == lineage.trace_question(run, name)


def test_tells_what_does_not_fit(run: Path, tmp_path: Path) -> None:
    mine = copy(run, tmp_path / "run")
    name = ids(run, "benchmark", source="lumiere")[0]
    image = lineage.trace_question(mine, name)["images"][0]
    index = table_io.read_table(mine / "raw/lumiere/files.parquet", "files").to_pylist()
    next(row for row in index if row["path"] == image["origin_file"])["sha256"] = "0" * 64
    table_io.write_table(mine / "raw/lumiere/files.parquet", "files", index)
    assert lineage.trace_question(mine, name)["images"][0]["agrees"] is False
    assert "but 000000000000 in raw/lumiere/files.parquet" in call(mine, "--qa-id", name).stdout

    scores = job_record.sidecar_path(mine / "scores/mantis.parquet")
    record = job_record.read_record(scores)
    before = record["outputs"]["answers"]["sha256"]
    record["outputs"]["answers"]["sha256"] = "1" * 64
    job_record.write_record(scores, record)
    job_record.sidecar_path(mine / "raw/odir/files.parquet").unlink()
    shown = call(mine, "--cell", "mantis", "odir", "accuracy").stdout
    assert f"scores/mantis.parquet 111111111111 but read as {before[:12]}" in shown
    assert "(no sidecar)" in next(line for line in shown.splitlines() if "raw/odir/files.parquet" in line)

    shutil.copy(job_record.sidecar_path(mine / "scores/llava-med.parquet"), scores)
    with pytest.raises(SidecarError, match=r"scores/mantis.parquet.prov.json: speaks of .*scores/llava-med.parquet"):
        lineage.trace_cell(mine, "mantis", "odir", "accuracy")
    scores.write_bytes(scores.read_bytes().replace(b"score.py", b"scare.py", 1))
    with pytest.raises(SidecarError, match="seal"):
        lineage.trace_cell(mine, "mantis", "odir", "accuracy")

    board = table_io.read_table(mine / "leaderboard.parquet", "leaderboard")
    table_io.write_table(mine / "leaderboard.parquet", "leaderboard", board.slice(0, 900))
    with pytest.raises(UserError, match=r"leaderboard.parquet: is not what its sidecar speaks of"):
        lineage.trace_cell(mine, "llava-med", "odir", "accuracy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "med-mnatis", "temporal", "accuracy"], "no model med-mnatis in the leaderboard: did you mean med-mantis"),
        (["--cell", "mantis", "temporl", "accuracy"], "no set temporl in the leaderboard: did you mean temporal?"),
        (["--cell", "mantis", "temporal", "acuracy"], "no metric acuracy in the leaderboard: did you mean accuracy"),
        (
            ["--cell", "mantis", "rad", "bleu", "--condition", "seen"],
            "no condition seen in the leaderboard: there are blind",
        ),
        (["--cell", "chance", "rad", "bleu"], "no bleu of chance, rad, plain: there is accuracy\n"),
        (["--cell", "mantis", "rad", "bleu", "--kind", "closed"], "no bleu of mantis, rad, plain, closed: there is accuracy, "),
        (["--qa-id", "abc"], "qa id 'abc': give 6 of its digits at least"),
        (["--qa-id", "zzzzzz"], "qa id zzzzzz is in no table of "),
        (["--qa-id", "{nearly}"], "did you mean {name}"),
        (["--cell", "mantis", "rad", "accuracy", "--json", "{board}/below"], "error: [Errno "),
    ],
)
def test_errors_are_for_people(run: Path, arguments: list[str], message: str) -> None:
    name = ids(run, "benchmark")[0]
    names = {"board": run / "leaderboard.parquet", "name": name, "nearly": name[:-1] + ("0" if name[-1] != "0" else "1")}
    done = call(run, *(argument.format(**names) for argument in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("trace.py: error: ") and message.format(**names) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_prefix_of_two_questions_and_unfinished_runs_are_told(run: Path, tmp_path: Path) -> None:
    mine = copy(run, tmp_path / "run", "leaderboard.parquet", "predictions", "scores", "shards", "models")
    rows = table_io.read_table(mine / "qa/train.parquet", "qa").to_pylist()
    twins = [rows[0] | {"qa_id": "abcdef0123456789"}, rows[1] | {"qa_id": "abcdef9876543210"}]
    table_io.write_table(mine / "qa/train.parquet", "qa", twins)
    with pytest.raises(UserError, match="abcdef stands for 2 questions: did you mean abcdef0123456789 or abcdef9876543210"):
        lineage.trace_question(mine, "abcdef")
    assert lineage.trace_question(mine, "abcdef0")["shards"] == []
    with pytest.raises(UserError, match=r"leaderboard.parquet: no such file: is the run finished\?"):
        lineage.trace_cell(mine, "mantis", "rad", "bleu")
    with pytest.raises(UserError, match="no such folder"):
        lineage.trace_cell(mine / "nowhere", "mantis", "rad", "bleu")
    pq.write_table(pa.table({"other": [1]}), mine / "leaderboard.parquet")
    with pytest.raises(UserError, match="not what its sidecar speaks of"):
        lineage.trace_cell(mine, "mantis", "rad", "bleu")
    pq.write_table(pa.table({"other": [1]}), mine / "qa/benchmark.parquet")
    with pytest.raises(UserError, match=r"qa/benchmark.parquet: not the table it should be"):
        lineage.trace_question(mine, "abcdef0")


def test_program_shows_the_tree_and_the_same_as_json(run: Path, tmp_path: Path) -> None:
    cell = ("med-mantis", "temporal", "accuracy_minus_base")
    done = call(run, "--cell", *cell, "--json", str(tmp_path / "cell.json"))
    found = lineage.trace_cell(run, *cell)
    assert done.returncode == 0 and json.loads((tmp_path / "cell.json").read_text()) == found
    lines = done.stdout.splitlines()
    for name, node in found["nodes"].items():  # once as a node, with its job; after that by name alone
        own = [line for line in lines if f" {name} {node['sha256'][:12]}" in line]
        assert len(own) == 1 and f"code {node['code'][:12]}" in done.stdout, name
    assert all(item["qa_id"] in done.stdout for item in found["items"])

    name = found["items"][0]["qa_id"]
    done = call(run, "--qa-id", name, "--json", "-")
    assert json.loads(done.stdout) == lineage.trace_question(run, name)
    shown = call(run, "--qa-id", name).stdout
    question = lineage.trace_question(run, name)
    for text in (question["question"]["question"], *question["question"]["options"], *(r["model"] for r in question["replies"])):
        assert text in shown

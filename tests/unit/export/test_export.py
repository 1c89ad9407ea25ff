"""The benchmark for others' tools: what each of them reads is what ours holds, and nothing credentialed leaves unasked."""

import ast
import base64
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from score_made import make_prediction, make_question

from config_files import config_file
from medmim.benchmarks.external.base import load_external_set
from medmim.common import files
from medmim.config.source_plugins import SOURCES
from medmim.export.croissant import APACHE_URL
from medmim.questions.prompt import prompt_text, strip_placeholders
from medmim.scoring.score_replies import score_predictions
from medmim.tables import data_policy, images, table_io
from medmim.tables.data_policy import DataPolicy
from medmim.tables.images import encode_png
from runs import ROOT

PROGRAM = ROOT / "workflow/scripts/export_questions.py"
CFG = {
    "run": "made",
    "providers": {name: source.describe_terms() for name, source in SOURCES.items()}
    | {"medframeqa": load_external_set("medframeqa").describe_terms()},
    "synthetic": ["lumiere", "vqa_rad", "medframeqa", "embed"],
    "credentialed": [],
    "allowed": False,
    "images": True,
    "max_new_tokens": 64,
}
RNG = np.random.default_rng(3)
PICTURES = [encode_png(RNG.integers(0, 256, shape, np.uint8)) for shape in ((20, 30), (24, 24, 3), (17, 9), (30, 20, 3))]
IDS = [image_id for image_id, _ in PICTURES]
SEVEN = ["incomplete", "negative", "benign", "probably benign", "suspicious", "highly suggestive", "known malignancy"]
HOSTILE = 'Tab\there, a line\nbreak, "quotes", a \\ and ünïcödé, 中文:\r\nwhich?'
Export = Callable[..., Path]


def made(
    name: str, set_: str, options: list[str], gold: str, shown: list[int], text: str, source: str = "lumiere"
) -> dict[str, Any]:
    row = make_question(name, set_, options, gold, [f"{source}/{name[0]}"], source=source, task=f"{source}_typeA")
    return row | {"question": "<image>" * len(shown) + text, "image_ids": [IDS[i] for i in shown]}


QUESTIONS = [
    made("a1", "odir", ["left", "None"], "None", [0, 1], "Which eye?"),
    made("a2", "temporal", SEVEN, "suspicious", [0, 1, 2], HOSTILE),
    made("b1", "temporal", [], 'A "larger"\tlesion.', [3, 2], "What changed?"),
    made("c1", "medframeqa", ['"A"\tcyst', "2", "yes\nand no"], "2", [1], "How many?", "medframeqa"),
    made("b2", "rad", ["yes", "no"], "no", [2, 0], "Is it?", "vqa_rad"),
]
BY_ID = {row["qa_id"]: row for row in QUESTIONS}
TRAINING = [
    made("t1", "comparison", ["worse", "better"], "better", [2, 3], "How is it?")
    | {"split": "train", "patient_ids": ["lumiere/b"]},
    made("t2", "composed", [], "two words", [1, 0], "What is this?") | {"split": "train", "generator": "made/2"},
    made("t3", "comparison", ["worse", "better"], "worse", [0, 2], "How is it?")
    | {"split": "train", "patient_ids": ["lumiere/z"]},
]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The benchmark's questions, training questions, and three images tables, one of a set whose licence is known."""
    folder = tmp_path_factory.mktemp("benchmark")
    table_io.write_table(folder / "benchmark.parquet", "qa", QUESTIONS)
    rows = [
        {
            "image_id": image_id, "source": "lumiere" if n < 3 else "embed", "patient_id": f"p{n}", "study_id": f"p{n}",
            "day": None, "view": "", "laterality": "", "modality": "MRI", "width": 1, "height": 1, "bytes": png,
            "thumbnail": bytes(4096), "release_path": f"{n}.png" if n == 0 else "", "origin_file": f"{n}.png",
            "origin_sha256": "0" * 64,
        }
        for n, (image_id, png) in enumerate(PICTURES)
    ]  # fmt: skip
    table_io.write_table(folder / "train.parquet", "qa", TRAINING)
    images.write_images(folder / "one.images.parquet", [rows[0], rows[2]])
    images.write_images(folder / "two.images.parquet", rows[3:])
    data_policy.set_current_policy(DataPolicy(frozenset({"cc-by-4.0"})))
    images.write_images(folder / "three.images.parquet", [rows[1] | {"source": "medframeqa"}])
    data_policy.set_current_policy(DataPolicy())
    return {path.name.split(".")[0]: path for path in folder.iterdir()}


@pytest.fixture
def export(tmp_path: Path, benchmark: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Export:
    """Runs the program in this process and gives the folder."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))

    def run(
        name: str,
        to: str = "export",
        tables: tuple[str, ...] = ("one", "two", "three"),
        qa: str = "benchmark",
        against: tuple[str, ...] = (),
        **cfg: Any,
    ) -> Path:
        index = tmp_path / to / name / "files.parquet"
        words = ["--format", name, "--qa", benchmark.get(qa, qa), "--images", *map(benchmark.get, tables), "--export", index]
        words += ["--against", *map(benchmark.get, against)]
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, words), "--cfg", config_file(CFG | cfg)])
        import_module("export_questions").main()
        return index.parent

    return run


def pixels(image: Image.Image) -> list[Any]:
    return [image.mode, image.size, np.asarray(image).tolist()]


def stored(row: dict[str, Any]) -> list[bytes]:
    return [dict(PICTURES)[i] for i in row["image_ids"]]


@pytest.mark.parametrize("name", ["hf", "lmms-eval", "vlmevalkit"])
def test_two_exports_have_the_same_bytes(export: Export, name: str) -> None:
    one, other = export(name, "one"), export(name, "other")
    found = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file() and not p.name.endswith(".prov.json"))
    assert found and [p for p in found if (one / p).read_bytes() != (other / p).read_bytes()] == []
    listed = table_io.read_frame(one / "files.parquet", "files").path.tolist()
    assert listed == [str(p) for p in found if p.name != "files.parquet"]


# Whose it is


def test_credentialed_sources_are_refused_with_their_counts(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    """One question is of lumiere, but shows an image of embed."""
    with pytest.raises(SystemExit):
        export("hf", credentialed=["embed", "ms_cxr_t", "vqa_rad"], synthetic=[])
    said = capsys.readouterr().err
    assert "of the 5 questions, some are of sources whose owners forbid to pass them on (embed 1, vqa_rad 1)" in said
    assert "set export.credentialed: true" in said


@pytest.mark.parametrize("name", ["hf", "lmms-eval", "vlmevalkit"])
def test_where_they_are_allowed_the_card_says_so(export: Export, name: str) -> None:
    told = (export(name, credentialed=["embed"], allowed=True, synthetic=[]) / "README.md").read_text()
    assert "**Credentialed: do not publish.** It holds questions (1 of EMBED, Emory)" in told
    assert "Credentialed" not in (export(name, "open") / "README.md").read_text()


def test_the_card_says_what_is_synthetic_and_whose_the_rest_is(export: Export) -> None:
    told = (export("hf") / "README.md").read_text()
    assert "**Synthetic.** Everything here was drawn" in told and "license: apache-2.0" in told
    told = (export("hf", "real", synthetic=["vqa_rad"]) / "README.md").read_text()
    assert "**Synthetic.** What is from vqa_rad was drawn" in told and "license: other" in told
    assert "| lumiere | 4 | LUMIERE, Bern | LUMIERE, non-commercial |" in told
    assert "| vqa_rad | 1 | phantoms, synthetic | Apache-2.0 |" in told
    assert "| medframeqa | 3 | MedFrameQA, SuhaoYu1020/MedFrameQA | cc-by-4.0 |" in told


def test_an_image_that_is_nowhere_is_named(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export("hf", tables=("one", "three"))
    assert f"question b1 shows {IDS[3]}, which is in none of the images tables" in capsys.readouterr().err


# Hugging Face


def test_datasets_opens_the_folder_with_its_images(export: Export, tmp_path: Path) -> None:
    import datasets

    folder = export("hf")
    found = datasets.load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))
    assert sorted(found["qa_id"]) == sorted(BY_ID)
    for row in found:
        ours = BY_ID[row["qa_id"]]
        for name in ("question", "options", "answer", "answer_index", "set", "kind", "image_ids", "patient_ids"):
            assert row[name] == ours[name], name
        assert [pixels(i) for i in row["images"]] == [pixels(images.decode_png(png)) for png in stored(ours)]
    raw = found.cast_column("images", datasets.List(datasets.Image(decode=False)))
    for row in raw:
        ours = BY_ID[row["qa_id"]]
        assert [i["bytes"] for i in row["images"]] == stored(ours)
        assert [i["path"] for i in row["images"]] == [f"{i}.png" for i in ours["image_ids"]]
    of_set = datasets.load_dataset(str(folder), "temporal", split="test", cache_dir=str(tmp_path / "cache"))
    assert of_set["qa_id"] == ["a2", "b1"]
    assert datasets.get_dataset_config_names(str(folder)) == ["temporal", "rad", "odir", "medframeqa", "all"]


def test_the_cards_header_tells_true_sizes(export: Export) -> None:
    import pyarrow.parquet as pq

    folder = export("hf")
    header = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert header["size_categories"] == ["n<1K"]
    infos = {info["config_name"]: info for info in header["dataset_info"]}
    assert infos.keys() == {config["config_name"] for config in header["configs"]}
    for name, info in infos.items():
        paths = sorted((folder / "data").glob("*.parquet" if name == "all" else f"{name}-*.parquet"))
        held = [pq.read_table(path) for path in paths]
        assert info["splits"] == [{"name": "test", "num_bytes": info["dataset_size"], "num_examples": sum(map(len, held))}]
        assert info["download_size"] == sum(path.stat().st_size for path in paths)
        assert info["dataset_size"] == pytest.approx(sum(table.nbytes for table in held), rel=0.01)  # but for bits that say null
    assert "&id" not in (folder / "README.md").read_text()  # not every reader of cards follows YAML's references


def test_readers_before_lists_were_features_understand_the_types(export: Export) -> None:
    """datasets 4 renamed what it had called Sequence; it reads the old name, older ones do not know the new."""
    import pyarrow.parquet as pq

    told = json.loads(pq.read_schema(export("hf") / "data/rad-00000-of-00001.parquet").metadata[b"huggingface"])["info"][
        "features"
    ]
    assert told["images"] == {"feature": {"_type": "Image"}, "_type": "Sequence"}
    assert told["options"] == {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}


# Datasheets and Croissant


def figures(card: str, after: str) -> dict[str, list[str]]:
    """The rows of the first table after some words, by their first cell."""
    lines = card.split(after, 1)[1].splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("|---"))
    found = {}
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        found[first] = rest
    return found


def test_the_datasheet_counts_what_is_exported(export: Export, benchmark: dict[str, Path]) -> None:
    told = (export("hf", against=("train",)) / "README.md").read_text()
    of_set = figures(told, "An instance is")
    assert of_set["temporal"] == ["2", "2", "2 (1), 3 (1)", "7 (1)", "E 1", "1, 1 to 3", "2", "50.0 %"]
    assert of_set["odir"] == ["1", "1", "2 (1)", "2 (1)", "B 1", "1, 1 to 1", "1", "100.0 %"]
    assert figures(told, "share of the questions that show")["temporal"] == ["2"]  # abilities
    leaks = figures(told, "Faults, and what questions share with the instruction set")
    assert leaks["temporal"][:3] == ["1", "2", "1"]  # b1 has the images and the patient of t1, a2 an image
    assert leaks["medframeqa"][:3] == ["0", "1", "0"] and leaks["odir"][:3] == ["1", "1", "0"]
    listed = figures(told, "### Maintenance")
    assert listed.keys() == {path.name for path in benchmark.values()}
    assert all(f"`{files.hash_file(path)}`" in listed[path.name] for path in benchmark.values())
    assert "was not looked for" not in told


def test_leaks_that_were_not_looked_for_are_not_told_as_none(export: Export) -> None:
    told = (export("hf") / "README.md").read_text()
    assert "what questions share with others was not looked for" in told and "same images in" not in told


def test_the_instruction_set_is_a_dataset_too(export: Export, tmp_path: Path) -> None:
    import datasets

    folder = export("hf", qa="train", against=("benchmark",))
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(found["qa_id"]) == ["t1", "t2", "t3"]
    assert [pixels(i) for i in found.filter(lambda r: r["qa_id"] == "t2")[0]["images"]] == [
        pixels(images.decode_png(png)) for png in stored(TRAINING[1])
    ]
    told = (folder / "README.md").read_text()
    assert "# Med-MIM instruction set" in told and "| comparison | train | 2 | 0 | 2 |" in told
    assert figures(told, "share with the benchmark")["comparison"][:3] == ["2", "2", "1"]
    assert "`made/1` 2, `made/2` 1" in told.replace("\n", " ")


def test_the_instruction_set_may_only_name_its_images(export: Export, tmp_path: Path) -> None:
    import datasets

    folder = export("hf", qa="train", tables=("one",), images=False)
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert "images" not in found.column_names
    assert {row["qa_id"]: row["image_ids"] for row in found} == {row["qa_id"]: row["image_ids"] for row in TRAINING}
    assert "`image_ids` names them" in (folder / "README.md").read_text()
    assert {field["name"] for field in json.loads((folder / "croissant.json").read_text())["recordSet"][0]["field"]} == {
        *found.column_names
    }


def test_the_tables_own_rules_refuse_what_no_config_named(
    export: Export, benchmark: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its images, too: the questions tell of them."""
    data_policy.set_current_policy(DataPolicy(frozenset({"hers"}), frozenset({"lumiere"})))
    benchmark = benchmark | {"marked": tmp_path / "marked.parquet"}
    table_io.write_table(benchmark["marked"], "qa", TRAINING)
    data_policy.set_current_policy(DataPolicy())
    with pytest.raises(SystemExit):
        export("hf", qa=str(benchmark["marked"]), images=False)
    assert "forbid to pass them on (lumiere 3)" in capsys.readouterr().err


def test_exported_files_are_under_the_rules_of_what_they_hold(export: Export) -> None:
    folder = export("hf", synthetic=["vqa_rad"], credentialed=["embed"], allowed=True)
    held = DataPolicy.from_table(folder / "data/rad-00000-of-00001.parquet")
    assert held.licences == {"cc-by-4.0", "synthetic", "LUMIERE, non-commercial", "EMBED Research Use Agreement"}
    assert held.credentialed == {"embed"}
    told = json.loads((folder / "croissant.json").read_text())
    assert sorted(told["license"]) == sorted({*held.licences, APACHE_URL} - {"synthetic"})


@pytest.mark.parametrize(("qa", "rows"), [("benchmark", QUESTIONS), ("train", TRAINING)])
def test_mlcroissant_accepts_and_reads_the_folder(
    export: Export, monkeypatch: pytest.MonkeyPatch, qa: str, rows: list[dict[str, Any]]
) -> None:
    """In several files a set, from the disk alone."""
    import mlcroissant

    monkeypatch.setattr("medmim.export.hf.QUESTIONS_PER_FILE", 1)
    folder = export("hf", qa=qa)
    found = mlcroissant.Dataset(folder / "croissant.json")
    assert not found.metadata.issues.errors
    assert {re.search('org/(.*?)"', w)[1] for w in found.metadata.issues.warnings} == {"datePublished", "version"}  # type: ignore[index]
    assert found.metadata.cite_as == "https://arxiv.org/abs/2505.19031"
    listed = {f.content_url: f.sha256 for f in found.metadata.file_objects}
    assert listed == {p.relative_to(folder).as_posix(): files.hash_file(p) for p in folder.glob("data/*")}
    assert len(listed) == len(rows)
    read = {}
    for record_set in found.metadata.record_sets:
        for record in found.records(record_set.id):
            plain = {name.split("/")[1]: value for name, value in record.items()}
            read[plain["qa_id"].decode()] = plain
    assert read.keys() == {row["qa_id"] for row in rows}
    for ours in rows:
        row = read[ours["qa_id"]]
        assert row["question"].decode() == ours["question"] and row["set"].decode() == ours["set"]
        assert [text.decode() for text in row["options"]] == ours["options"]
        assert row["answer_index"] == ours["answer_index"]
        assert [pixels(image) for image in row["images"]] == [pixels(images.decode_png(png)) for png in stored(ours)]


# VLMEvalKit


def vlmevalkit(path: Path) -> pd.DataFrame:
    """As vlmeval.smp.load and ImageBaseDataset read a file: pandas' defaults, and a text in brackets is a Python list."""
    frame = pd.read_csv(path, sep="\t")
    assert (frame["image"].str.len() > 64).all()  # up to 64 characters are another row's index
    for name in ("image", "image_path"):
        frame[name] = [ast.literal_eval(x) if x[0] + x[-1] == "[]" else [x] for x in frame[name]]
    return frame


def test_vlmevalkit_reads_what_we_hold(export: Export) -> None:
    folder = export("vlmevalkit")
    closed, opened = vlmevalkit(folder / "MedMIM.tsv"), vlmevalkit(folder / "MedMIM_openended.tsv")
    assert closed["qa_id"].tolist() == ["a2", "b2", "a1", "c1"] and opened["qa_id"].tolist() == ["b1"]
    assert closed["index"].tolist() == [0, 1, 2, 3] and closed["index"].dtype == np.int64
    assert "A" not in opened and set(closed) - set(opened) == set("ABCDEFG")
    for row in [*closed.to_dict("records"), *opened.to_dict("records")]:
        ours = BY_ID[row["qa_id"]]
        options = [str(row[letter]) for letter in "ABCDEFG" if letter in row and not pd.isna(row[letter])]
        assert options == [" None" if text == "None" else text for text in ours["options"]]  # pandas takes None for nothing
        assert row["question"] == strip_placeholders(ours["question"])
        assert row["answer"] == ("ABCDEFG"[ours["answer_index"]] if options else ours["answer"])
        assert (row["category"], row["l2-category"]) == (ours["set"], ours["task"])
        assert [base64.b64decode(x) for x in row["image"]] == stored(ours)
        assert row["image_path"] == [f"{i}.png" for i in ours["image_ids"]]
    assert closed["split"].tolist() == ["held_in", "held_out", "held_out", "further"]


# lmms-eval

TASK = {
    "task", "task_alias", "tag", "group", "group_alias", "include", "dataset_path", "dataset_name", "dataset_kwargs",
    "training_split", "validation_split", "test_split", "fewshot_split", "full_docs", "process_results_use_image", "process_docs",
    "doc_to_visual", "doc_to_text", "doc_to_target", "doc_to_choice", "doc_to_messages", "process_results", "use_prompt",
    "description", "target_delimiter", "fewshot_delimiter", "fewshot_config", "num_fewshot", "metric_list", "output_type",
    "generation_kwargs", "repeats", "filter_list", "should_decontaminate", "doc_to_decontamination_query", "cluster_key",
    "score_key", "metadata", "lmms_eval_specific_kwargs", "model_specific_generation_kwargs", "model_specific_target_kwargs",
    "reasoning_tags", "auto_strip_thinking",
}  # fmt: skip
"""Fields of lmms_eval.api.task.TaskConfig in lmms-eval 0.7.3, which refuses any other."""
GROUP = {"group", "group_alias", "task", "aggregate_metric_list", "metadata"}
"""Fields of lmms_eval.api.group.GroupConfig."""
REPLIES = [
    "B",
    "The answer is (A).",
    "I cannot interpret medical images.",
    "",
    "None",
    "A or B",
    "suspicious",
    "Answer: E",
    "yes",
]


class Loader(yaml.SafeLoader):
    """YAML with lmms-eval's tag, left as the name that it gives."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def tasks(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Tasks and groups by name, as lmms-eval's TaskManager finds them: every *.yaml, those it includes merged in."""
    found: tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]] = ({}, {})
    for path in sorted(folder.glob("*.yaml")):
        told = yaml.load(path.read_text(), Loader)
        if isinstance(told["task"], list):
            assert told.keys() <= GROUP
            found[1][told["group"]] = told
        else:
            included = yaml.load((folder / told.pop("include")).read_text(), Loader)
            found[0][told["task"]] = {**included, **told}
            assert path.stem == told["task"] and found[0][told["task"]].keys() <= TASK
    return found


def utils(folder: Path) -> Any:
    """The module that !function names, loaded as lmms-eval does: by its file, with no path to it."""
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_task_has_what_lmms_eval_asks_for(export: Export, tmp_path: Path) -> None:
    import datasets

    folder = export("lmms-eval")
    single, groups = tasks(folder)
    assert single.keys() == {f"medmim_{x}" for x in ("temporal", "temporal_open", "rad", "odir", "medframeqa")}
    assert {name: told["task"] for name, told in groups.items()} == {
        "medmim": ["medmim_held_in", "medmim_open", "medmim_held_out", "medmim_medframeqa"],
        "medmim_held_in": ["medmim_temporal"], "medmim_held_out": ["medmim_rad", "medmim_odir"],
        "medmim_open": ["medmim_temporal_open"],
    }  # fmt: skip
    module, seen = utils(folder), []
    for task in single.values():
        assert (task["dataset_path"], task["output_type"], task["generation_kwargs"]["max_new_tokens"]) == (
            "parquet",
            "generate_until",
            64,
        )
        files = {split: str(folder / path) for split, path in task["dataset_kwargs"]["data_files"].items()}  # beside the YAML
        docs = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))[task["test_split"]]
        functions = {
            k: getattr(module, str(task[k]).removeprefix("utils."))
            for k in ("doc_to_visual", "doc_to_text", "doc_to_target", "process_results")
        }
        for doc in docs:
            ours = BY_ID[doc["qa_id"]]
            seen.append(doc["qa_id"])
            shown = [images.decode_png(png).convert("RGB") for png in stored(ours)]
            assert [pixels(i) for i in functions["doc_to_visual"](doc)] == [pixels(i) for i in shown]
            text = strip_placeholders(prompt_text(ours["question"], ours["options"]))
            around = task["lmms_eval_specific_kwargs"]["default"]
            assert functions["doc_to_text"](doc) == functions["doc_to_text"](doc, around) == text
            assert functions["doc_to_text"](doc, {"post_prompt": "!"}) == text + "!"
            target = functions["doc_to_target"](doc)
            scored = functions["process_results"](doc, [target])
            assert scored.keys() == {m["metric"] for m in task["metric_list"]}
            assert scored.get("accuracy", scored.get("exact_match")) == 1
    assert sorted(seen) == sorted(BY_ID)


@pytest.mark.parametrize("reply", REPLIES)
def test_lmms_eval_scores_replies_as_we_do(export: Export, reply: str) -> None:
    module = utils(export("lmms-eval"))
    said = [make_prediction(row["qa_id"], "m", "plain", reply, [0.0] * len(row["options"])) for row in QUESTIONS]
    ours = score_predictions(table_io.build_table("qa", QUESTIONS), [table_io.build_table("predictions", said)]).to_pylist()
    for row in QUESTIONS:
        scores = {a["metric"]: a for a in ours if a["qa_id"] == row["qa_id"]}
        theirs = (module.closed_results if row["options"] else module.open_results)(row, [reply])
        for metric in ("accuracy", "exact_match", "token_recall", "token_f1"):
            assert (metric in theirs) == (metric in scores)
            assert metric not in theirs or theirs[metric] == scores[metric]["value"]
        for rate in ("unparsed", "refused", "ambiguous") if row["options"] else ():
            assert theirs[f"{rate}_rate"] == (scores["accuracy"]["status"] == rate)

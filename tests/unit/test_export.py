"""The benchmark for others' tools: what each of them reads is what ours holds, and nothing credentialed leaves unasked."""

import ast
import base64
import importlib.util
import json
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
from score_made import prediction, question

from medmim import images, tables
from medmim.images import encode
from medmim.qa.prompt import blind, prompt_text
from medmim.score.answers import answers
from runs import ROOT

PROGRAM = ROOT / "workflow/scripts/export_benchmark.py"
CFG = {
    "run": "made",
    "synthetic": ["lumiere", "vqa_rad", "medframeqa"],
    "credentialed": [],
    "allowed": False,
    "max_new_tokens": 64,
}
RNG = np.random.default_rng(3)
PICTURES = [encode(RNG.integers(0, 256, shape, np.uint8)) for shape in ((20, 30), (24, 24, 3), (17, 9), (30, 20, 3))]
IDS = [image_id for image_id, _ in PICTURES]
SEVEN = ["incomplete", "negative", "benign", "probably benign", "suspicious", "highly suggestive", "known malignancy"]
HOSTILE = 'Tab\there, a line\nbreak, "quotes", a \\ and ünïcödé, 中文:\r\nwhich?'
Export = Callable[..., Path]


def made(
    name: str, set_: str, options: list[str], gold: str, shown: list[int], text: str, source: str = "lumiere"
) -> dict[str, Any]:
    row = question(name, set_, options, gold, [f"{source}/{name[0]}"], source=source, task=f"{source}_typeA")
    return row | {"question": "<image>" * len(shown) + text, "image_ids": [IDS[i] for i in shown]}


QUESTIONS = [
    made("a1", "odir", ["left", "None"], "None", [0, 1], "Which eye?"),
    made("a2", "temporal", SEVEN, "suspicious", [0, 1, 2], HOSTILE),
    made("b1", "temporal", [], 'A "larger"\tlesion.', [3, 2], "What changed?"),
    made("c1", "medframeqa", ['"A"\tcyst', "2", "yes\nand no"], "2", [1], "How many?", "medframeqa"),
    made("b2", "rad", ["yes", "no"], "no", [2, 0], "Is it?", "vqa_rad"),
]
BY_ID = {row["qa_id"]: row for row in QUESTIONS}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A qa table, and two images tables."""
    folder = tmp_path_factory.mktemp("benchmark")
    tables.write(folder / "benchmark.parquet", "qa", QUESTIONS)
    rows = [
        {
            "image_id": image_id, "source": "lumiere" if n < 3 else "embed", "patient_id": f"p{n}", "study_id": f"p{n}",
            "day": None, "view": "", "laterality": "", "modality": "MRI", "width": 1, "height": 1, "bytes": png,
            "release_path": f"{n}.png" if n == 0 else "", "origin_file": f"{n}.png", "origin_sha256": "0" * 64,
        }
        for n, (image_id, png) in enumerate(PICTURES)
    ]  # fmt: skip
    images.write(folder / "one.images.parquet", rows[:3])
    images.write(folder / "two.images.parquet", rows[3:])
    return {"qa": folder / "benchmark.parquet", "one": folder / "one.images.parquet", "two": folder / "two.images.parquet"}


@pytest.fixture
def export(tmp_path: Path, benchmark: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Export:
    """Runs the program in this process and gives the folder."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))

    def run(name: str, to: str = "export", tables: tuple[str, ...] = ("one", "two"), **cfg: Any) -> Path:
        index = tmp_path / to / name / "files.parquet"
        words = ["--format", name, "--qa", benchmark["qa"], "--images", *map(benchmark.get, tables), "--export", index]
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, words), "--cfg", json.dumps(CFG | cfg)])
        import_module("export_benchmark").main()
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
    listed = tables.frame(one / "files.parquet", "files").path.tolist()
    assert listed == [str(p) for p in found if p.name != "files.parquet"]


# Whose it is


def test_credentialed_sources_are_refused_with_their_counts(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    """One question is of lumiere, but shows an image of embed."""
    with pytest.raises(SystemExit):
        export("hf", credentialed=["embed", "ms_cxr_t", "vqa_rad"])
    said = capsys.readouterr().err
    assert "of the 5 questions, some are of sources whose owners forbid to pass them on (embed 1, vqa_rad 1)" in said
    assert "set export.credentialed: true" in said


@pytest.mark.parametrize("name", ["hf", "lmms-eval", "vlmevalkit"])
def test_where_they_are_allowed_the_card_says_so(export: Export, name: str) -> None:
    told = (export(name, credentialed=["embed"], allowed=True) / "README.md").read_text()
    assert "**Credentialed: do not publish.** It holds questions (1 of EMBED Open Data, Emory)" in told
    assert "Credentialed" not in (export(name, "open") / "README.md").read_text()


def test_the_card_says_what_is_synthetic_and_whose_the_rest_is(export: Export) -> None:
    told = (export("hf") / "README.md").read_text()
    assert "**Synthetic.** Everything here was drawn" in told and "license: apache-2.0" in told
    told = (export("hf", "real", synthetic=["vqa_rad"]) / "README.md").read_text()
    assert "**Synthetic.** What is from vqa_rad was drawn" in told and "license: other" in told
    assert "| lumiere | 3 | LUMIERE, figshare collection 5904905 | terms of its owner |" in told
    assert "| vqa_rad | 1 | phantoms, synthetic | Apache-2.0 |" in told
    assert "| medframeqa | 1 | MedFrameQA, SuhaoYu1020/MedFrameQA | CC BY 4.0 |" in told


def test_an_image_that_is_nowhere_is_named(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export("hf", tables=("one",))
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
        assert [pixels(i) for i in row["images"]] == [pixels(images.decode(png)) for png in stored(ours)]
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
        paths = sorted((folder / "data").glob("*.parquet" if name == "all" else f"{name}.parquet"))
        held = [pq.read_table(path) for path in paths]
        assert info["splits"] == [{"name": "test", "num_bytes": info["dataset_size"], "num_examples": sum(map(len, held))}]
        assert info["download_size"] == sum(path.stat().st_size for path in paths)
        assert info["dataset_size"] == pytest.approx(sum(table.nbytes for table in held), rel=0.01)  # but for bits that say null
    assert "&id" not in (folder / "README.md").read_text()  # not every reader of cards follows YAML's references


def test_readers_before_lists_were_features_understand_the_types(export: Export) -> None:
    """datasets 4 renamed what it had called Sequence; it reads the old name, older ones do not know the new."""
    import pyarrow.parquet as pq

    told = json.loads(pq.read_schema(export("hf") / "data/rad.parquet").metadata[b"huggingface"])["info"]["features"]
    assert told["images"] == {"feature": {"_type": "Image"}, "_type": "Sequence"}
    assert told["options"] == {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}


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
        assert row["question"] == blind(ours["question"])
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
            shown = [images.decode(png).convert("RGB") for png in stored(ours)]
            assert [pixels(i) for i in functions["doc_to_visual"](doc)] == [pixels(i) for i in shown]
            text = blind(prompt_text(ours["question"], ours["options"]))
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
    said = [prediction(row["qa_id"], "m", "plain", reply, [0.0] * len(row["options"])) for row in QUESTIONS]
    ours = answers(tables.build("qa", QUESTIONS), [tables.build("predictions", said)])
    for row in QUESTIONS:
        scores = {a["metric"]: a for a in ours if a["qa_id"] == row["qa_id"]}
        theirs = (module.closed_results if row["options"] else module.open_results)(row, [reply])
        for metric in ("accuracy", "exact_match", "token_recall", "token_f1"):
            assert (metric in theirs) == (metric in scores)
            assert metric not in theirs or theirs[metric] == scores[metric]["value"]
        for rate in ("unparsed", "refused", "ambiguous") if row["options"] else ():
            assert theirs[f"{rate}_rate"] == (scores["accuracy"]["status"] == rate)

"""Held-out sets of others: small folders in their layouts, with what may be wrong in them, become questions and images."""

import errno
import io
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from score_made import make_prediction, make_question

import heldout_made as made
from config_files import config_file
from medmim.benchmarks.external import medframeqa
from medmim.benchmarks.external.base import Case, HeldoutImporter, load_external_set
from medmim.benchmarks.quality.faults import audit_files
from medmim.common import files
from medmim.common.errors import UserError
from medmim.config.part_names import EXTERNAL_SETS
from medmim.config.source_plugins import Terms
from medmim.reporting.report.board import Leaderboard
from medmim.scoring.leaderboard import build_leaderboard
from medmim.scoring.score_replies import score_predictions
from medmim.tables import images, table_io
from medmim.tables.data_policy import DataPolicy
from medmim.tables.images import ImageStore
from runs import ROOT

SCRIPTS = ROOT / "workflow/scripts"


def imported(name: str, root: Path, **how: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str], int]:
    """Questions, images, reasons of rejection by item, and how many questions were left out."""
    index = {str(row["path"]): str(row["sha256"]) for row in files.index_files(root)}
    done = HeldoutImporter(
        name, root, import_module(f"medmim.benchmarks.external.{name}").read_cases, index, **({"size": 768} | how)
    )
    shown = table_io.build_table("images", list(done.iter_image_rows())).to_pylist()
    done.check_rejected_share(1.0)
    rejected = {row["item"]: row["reason"] for row in done.rejection_rows()}
    return table_io.build_table("qa", done.rows).to_pylist(), shown, rejected, done.single_image_count


Program = Callable[..., tuple[int, str]]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Runs a program in this process: its exit status and what it said."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def run(name: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPTS / name), *map(str, arguments)])
        try:
            import_module(name.removesuffix(".py")).main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


# MedFrameQA


def test_a_video_is_a_patient_and_its_frames_come_in_order(tmp_path: Path) -> None:
    root = made.write_medframeqa(tmp_path / "set", [made.make_video_question(n) for n in range(5)])
    rows, shown, rejected, left = imported("medframeqa", root)
    assert (rejected, left) == ({}, 0)
    assert [len(row["image_ids"]) for row in rows] == [2, 3, 4, 5, 2]
    third = rows[3]
    assert third["question"] == "<image>" * 5 + "What do the frames of case 3 show together?"
    assert third["options"] == list(made.OPTIONS)
    assert (third["answer"], third["answer_index"]) == ("Haematoma", 3)
    assert (third["set"], third["ability"], third["split"], third["kind"]) == ("medframeqa", "medframeqa", "benchmark", "closed")
    assert (third["source"], third["task"], third["patient_ids"]) == (
        "medframeqa",
        "medframeqa_ultrasound",
        ["medframeqa/video-1"],
    )
    of = {row["image_id"]: row for row in shown}
    for seed, image_id in zip(range(30, 35), third["image_ids"], strict=True):
        assert (pixels(of[image_id]["bytes"]) == pixels(made.make_jpeg(seed))).all()
    assert of[third["image_ids"][1]]["origin_file"] == "data/test-00001-of-00002.parquet!q0003/image_2"
    assert {row["modality"] for row in shown} == {"ultrasound", "CT", "radiography"}
    assert {row["patient_id"] for row in shown} == {f"medframeqa/video-{n}" for n in range(3)}


def test_a_frame_of_two_videos_joins_their_patients(tmp_path: Path) -> None:
    """It is kept once, and the question that shows it again is not independent of the first."""
    again = made.make_video_question(4, **made.make_frames(1, 77))
    rows, shown, _, _ = imported("medframeqa", made.write_medframeqa(tmp_path / "set", [made.make_video_question(0), again]))
    assert len(shown) == len({row["image_id"] for row in shown}) == 3
    assert rows[0]["image_ids"][1] == rows[1]["image_ids"][0]
    assert [row["patient_ids"] for row in rows] == [["medframeqa/video-0"], ["medframeqa/video-0", "medframeqa/video-2"]]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"correct_answer": "G"}, "the answer is 'G', no letter of its 6 options"),
        ({"correct_answer": "Cyst"}, "the answer is 'Cyst', no letter of its 6 options"),
        ({"question": None}, "question is empty"),
        ({"question_id": "q0000"}, "question_id q0000 is that of data/test-00000-of-00002.parquet row 0"),
        ({"options": ["Cyst", None]}, "an option is empty"),
        ({"options": ["Cyst"], "correct_answer": "A"}, "a closed question with 1 options"),
        (
            {"image_2": {"bytes": b"no image", "path": "x.jpg"}},
            "data/test-00000-of-00002.parquet!q0001/image_2: can't be decoded",
        ),
        ({"image_2": {"bytes": None, "path": "x.jpg"}}, "!q0001/image_2: the Parquet file holds no bytes of it"),
        (made.make_video_question(0) | {"question_id": "other"}, "same question, options, answer and images as"),
    ],
)
def test_what_can_not_be_asked_is_listed_with_its_reason(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    rows = [made.make_video_question(0), made.make_video_question(1) | changed, made.make_video_question(2)]
    kept, shown, rejected, _ = imported("medframeqa", made.write_medframeqa(tmp_path / "set", rows))
    assert len(kept) == 2 and list(rejected) == ["data/test-00000-of-00002.parquet row 1"]
    assert reason in rejected["data/test-00000-of-00002.parquet row 1"]
    assert {i for row in kept for i in row["image_ids"]} == {row["image_id"] for row in shown}  # none of the question turned away


def test_fewer_than_two_images_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [made.make_video_question(0), made.make_video_question(1, **made.make_frames(3))]
    kept, _, rejected, left = imported("medframeqa", made.write_medframeqa(tmp_path / "set", rows))
    assert (len(kept), rejected, left) == (1, {}, 1)


def test_a_limit_draws_the_same_questions_from_any_order(tmp_path: Path) -> None:
    rows = [made.make_video_question(n) for n in range(8)]
    chosen = [imported("medframeqa", made.write_medframeqa(tmp_path / name, part), limit=3)[0]
              for name, part in (("one", rows), ("other", rows[::-1]))]  # fmt: skip
    assert len(chosen[0]) == 3
    assert {row["qa_id"] for row in chosen[0]} == {row["qa_id"] for row in chosen[1]}
    whole = {row["qa_id"] for row in imported("medframeqa", tmp_path / "one")[0]}
    assert {row["qa_id"] for row in chosen[0]} < whole


def drop(root: Path, column: str) -> None:
    for path in root.glob("data/*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(column), path)


def retype(root: Path) -> None:
    for path in root.glob("data/*.parquet"):
        table = pq.read_table(path)
        joined = pa.array([" ".join(options) for options in table["options"].to_pylist()])
        pq.write_table(table.set_column(table.column_names.index("options"), "options", joined), path)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("medframeqa", lambda root: drop(root, "video_id"), r"needs video_id \(a text\); there are question_id \(string\), "),
        ("medframeqa", lambda root: drop(root, "image_2"), r"needs image_2 \(with its bytes\); there are .* image_1 \(struct"),
        ("medframeqa", retype, r"needs options \(a list of texts\); there are .*options \(string\)"),
        ("medframeqa", lambda root: [p.unlink() for p in root.glob("data/*")], "no data/.*parquet here; expected the fol"),
        ("medframeqa", lambda root: next(root.glob("data/*")).write_bytes(b"no"), "not a Parquet file"),
        ("medxpertqa", lambda root: (root / "MM/test.jsonl").unlink(), "no MM/test.jsonl here; expected the folder as Tsinghua"),
        ("medxpertqa", lambda root: (root / "images.zip").unlink(), "neither images.zip nor images/ here"),
        ("medxpertqa", lambda root: (root / "images.zip").write_bytes(b"PK"), "can't be read as a zip, perhaps cut off"),
        ("medxpertqa", lambda root: (root / "MM/test.jsonl").write_text('{"id": "MM-1", "text": "?"}\n'),
         "record 1 lacks question, options, label, images, medical_task; there are id, text"),
        ("medxpertqa", lambda root: (root / "MM/test.jsonl").write_text('{"id": '),
             r"test\.jsonl:1:8: the file is cut off inside record 1"),
    ],
)  # fmt: skip
def test_another_layout_is_refused(tmp_path: Path, name: str, change: Callable[[Path], object], expected: str) -> None:
    root = folder(name, tmp_path)
    change(root)
    with pytest.raises(UserError, match=expected):
        imported(name, root)


def folder(name: str, tmp_path: Path) -> Path:
    if name == "medframeqa":
        return made.write_medframeqa(tmp_path / "set", [made.make_video_question(n) for n in range(4)])
    return made.write_medxpertqa(tmp_path / "set", [made.make_exam_question(n) for n in range(4)])


# MedXpertQA


def test_questions_of_several_images_are_taken_from_the_archive(tmp_path: Path) -> None:
    records = [
        made.make_exam_question(0, 1),
        made.make_exam_question(1, 3),
        made.make_exam_question(2, 2),
        made.make_exam_question(3, 0),
    ]
    rows, shown, rejected, left = imported("medxpertqa", made.write_medxpertqa(tmp_path / "set", records))
    assert (len(rows), rejected, left) == (2, {}, 2)
    first = rows[0]
    assert first["question"] == "<image>" * 3 + "A patient has complaint 1. What is the most probable diagnosis?"
    assert first["options"] == list(made.OPTIONS[:5]) and first["answer"] == "Fibroadenoma"
    assert (first["task"], first["patient_ids"]) == ("medxpertqa_basic_medicine", ["medxpertqa/MM-1"])
    assert [row["origin_file"] for row in shown[:3]] == [f"images.zip!images/MM-1-{x}.jpeg" for x in "abc"]
    assert (pixels(shown[0]["bytes"]) == pixels(made.make_jpeg(1001))).all()


def test_unpacked_images_are_the_same(tmp_path: Path) -> None:
    records = [made.make_exam_question(n) for n in range(3)]
    packed, unpacked = (
        imported("medxpertqa", made.write_medxpertqa(tmp_path / str(how), records, unpacked=how)) for how in (False, True)
    )
    assert [row["image_id"] for row in packed[1]] == [row["image_id"] for row in unpacked[1]]
    assert unpacked[1][0]["origin_file"] == "images/MM-0-a.jpeg"
    assert [row["qa_id"] for row in packed[0]] == [row["qa_id"] for row in unpacked[0]]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"label": "F"}, "the answer is 'F', no letter of its 5 options"),
        ({"label": ["A"]}, "label is empty or no text"),
        ({"options": [{"letter": "A", "content": "Cyst"}]}, "options are not texts under the letters A, B, ..."),
        ({"options": {"A": "Cyst", "C": "Abscess"}}, "options are not texts under the letters A, B, ..."),
        ({"images": None}, "images is not a list of file names"),
        ({"id": "MM-0"}, "id MM-0 is that of record 1"),
        ({"images": ["MM-1-a.jpeg", "absent.jpeg"]}, "images/absent.jpeg: no image absent.jpeg"),
    ],
)
def test_what_a_record_lacks_is_said(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    records = [made.make_exam_question(0), made.make_exam_question(1) | changed]
    rows, _, rejected, _ = imported("medxpertqa", made.write_medxpertqa(tmp_path / "set", records, without=("absent.jpeg",)))
    assert len(rows) == 1 and list(rejected) == ["MM/test.jsonl record 2"]
    assert reason in rejected["MM/test.jsonl record 2"]


def test_a_question_is_cut_only_where_it_repeats_its_options(tmp_path: Path) -> None:
    text = "Answer Choices: are what? (A) Cyst only"
    rows, *_ = imported("medxpertqa", made.write_medxpertqa(tmp_path / "set", [made.make_exam_question(0, question=text)]))
    assert rows[0]["question"] == "<image><image>" + text


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    root = made.write_medxpertqa(tmp_path / "set", [made.make_exam_question(0)], unpacked=True)
    (root / "images/more").mkdir()
    (root / "images/more/MM-0-a.jpeg").write_bytes(made.make_jpeg(0))
    with pytest.raises(UserError, match=r"two images named MM-0-a.jpeg: images/MM-0-a.jpeg and images/more/MM-0-a.jpeg"):
        imported("medxpertqa", root)


# The programs


def indexed(root: Path, place: Path) -> Path:
    table_io.write_table(place, "files", files.index_files(root))
    return place


def test_one_thread_or_several_give_the_same_bytes(tmp_path: Path, program: Program) -> None:
    root = made.write_medframeqa(tmp_path / "set", [made.make_video_question(n) for n in range(40)])
    raw = indexed(root, tmp_path / "raw.parquet")
    names = ("images", "qa", "rejected")
    cfg = config_file({"size": 24})
    for threads in (1, 3):
        out = [word for name in names for word in (f"--{name}", tmp_path / str(threads) / f"{name}.parquet")]
        words = ("--set", "medframeqa", "--root", root, "--raw", raw, "--threads", threads, "--cfg", cfg, *out)
        code, said = program("import_heldout.py", *words)
        assert code == 0 and "medframeqa: 40 questions, 140 images, 0 rejected" in said
    for name in names:
        one, several = (tmp_path / str(threads) / f"{name}.parquet" for threads in (1, 3))
        assert one.read_bytes() == several.read_bytes()
    assert table_io.read_frame(tmp_path / "1/images.parquet", "images").width.max() == 24


@pytest.mark.parametrize(
    ("cfg", "change", "expected"),
    [
        (
            {},
            None,
            "1 of 4 questions of medxpertqa about several images can't be used, more than the share 0.01 that max_rejected",
        ),
        ({"max_rejected": 0.3}, None, ""),
        ({"max_rejected": 0.3}, "images.zip", "images.zip is not as the set's index has it: index the folder again"),
        ({"max_rejected": 0.3}, "MM/test.jsonl", "MM/test.jsonl is not as the set's index has it: index the folder again"),
    ],
)
def test_too_many_broken_questions_or_a_changed_file_stop_it(
    tmp_path: Path, program: Program, cfg: dict[str, Any], change: str | None, expected: str
) -> None:
    root = made.write_medxpertqa(
        tmp_path / "set", [*(made.make_exam_question(n) for n in range(3)), made.make_exam_question(3, label="Z")]
    )
    raw = indexed(root, tmp_path / "raw.parquet")
    if change:
        with (root / change).open("ab") as file:
            file.write(b"\n")
    out = [word for name in ("images", "qa", "rejected") for word in (f"--{name}", tmp_path / f"out/{name}.parquet")]
    words = ("--set", "medxpertqa", "--root", root, "--raw", raw, *out, "--cfg", config_file({"size": 32} | cfg))
    code, said = program("import_heldout.py", *words)
    assert code == bool(expected) and expected in said
    assert len(list((tmp_path / "out").glob("*.parquet"))) == (0 if expected else 3)


def test_join_refuses_a_question_that_stands_twice(tmp_path: Path, program: Program) -> None:
    ours, theirs = (
        make_question("q1", "temporal", ["a", "b"], "a", ["p"]),
        make_question("q2", "medframeqa", ["a", "b"], "a", ["v"]),
    )
    for name, rows in (("benchmark", [ours]), ("theirs", [theirs]), ("again", [ours])):
        table_io.write_table(tmp_path / f"{name}.parquet", "qa", rows)
    words = ("--benchmark", tmp_path / "benchmark.parquet", "--joined", tmp_path / "joined.parquet", "--heldout")
    code, said = program("join_benchmark.py", *words, tmp_path / "theirs.parquet")
    assert code == 0 and "2 questions: temporal 1, medframeqa 1" in said
    assert table_io.read_table(tmp_path / "joined.parquet", "qa").to_pylist() == [ours, theirs]
    code, said = program("join_benchmark.py", *words, tmp_path / "again.parquet")
    assert code == 1 and "1 questions stand in two of the tables, such as q1" in said


COMMIT = "96083ae9405b2fdb687005c65902f2ee3d7c9f12"


@pytest.mark.parametrize("given", [COMMIT, "0" * 40])
def test_a_set_is_fetched_at_its_commit_and_linked(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(repository: str, **how: Any) -> str:
        asked.update(repository=repository, **how)
        return str(made.write_medframeqa(tmp_path / "hub" / given, [made.make_video_question(0), made.make_video_question(1)]))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    index = tmp_path / "raw/files.parquet"
    cfg = config_file({"hub": "SuhaoYu1020/MedFrameQA", "revision": COMMIT, "files": ["*.parquet"], "licence": "of the module"})
    code, said = program("fetch_heldout.py", "--index", index, "--cfg", cfg)
    if given != COMMIT:
        assert code == 1 and f"the hub gave commit {given}, not {COMMIT}" in said and not index.exists()
        return
    assert code == 0 and f"3 files of SuhaoYu1020/MedFrameQA at {COMMIT}" in said
    assert asked["repo_type"] == "dataset" and asked["revision"] == COMMIT
    assert asked["allow_patterns"] == ["*.parquet", "README.md"]
    assert table_io.read_frame(index, "files").path.tolist() == [
        "README.md",
        "data/test-00000-of-00002.parquet",
        "data/test-00001-of-00002.parquet",
    ]
    words = ["--set", "medframeqa", "--root", index.parent, "--raw", index, "--cfg", config_file({"size": 64})]
    made_of = {name: tmp_path / f"{name}.parquet" for name in ("images", "qa", "rejected")}
    assert program("import_heldout.py", *words, *(w for name, path in made_of.items() for w in (f"--{name}", path)))[0] == 0
    assert len(table_io.read_table(made_of["qa"], "qa")) == 2
    assert {DataPolicy.from_table(path) for path in (index, *made_of.values())} == {DataPolicy(frozenset({"cc-by-4.0"}))}


@pytest.mark.parametrize(
    ("card", "licences"),
    [
        ("---\nlicense: mit\n---\n", {"mit"}),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", {"mit", "cc-by-4.0"}),
        ("---\nlicense: other\nlicense_name: of-its-own\n---\n", {"of-its-own"}),
        ("---\nlicense: other\n---\n", {"other"}),
        ("---\ntags: [a]\n---\n", {"not stated"}),
        ("---\nlicense: {\n---\n", {"not stated"}),
        ("No header.", {"not stated"}),
        (None, {"not stated"}),
    ],
)
def test_a_set_in_a_folder_is_under_the_licence_of_its_card(
    tmp_path: Path, program: Program, card: str | None, licences: set[str]
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data").write_text("x")
    if card is not None:
        (tmp_path / "set/README.md").write_text(card)
    index = tmp_path / "set.parquet"
    code, said = program("index_files.py", "--root", tmp_path / "set", "--index", index, "--cfg", config_file({"card": True}))
    assert code == 0 and DataPolicy.from_table(index).licences == licences
    assert ("header can't be read" in said) == (card == "---\nlicense: {\n---\n")


def test_further_sets_are_scored_on_their_own_and_in_no_sum() -> None:
    items = [
        make_question("a", "temporal", ["x", "y"], "x", ["p"]), make_question("b", "rad", ["x", "y"], "x", ["q"]),
        make_question("c", "medframeqa", ["x", "y"], "x", ["v"]), make_question("d", "medframeqa", ["x", "y"], "y", ["w"]),
    ]  # fmt: skip
    qa = table_io.build_table("qa", items)
    said = [make_prediction(item["qa_id"], "m", "plain", "A", [-0.1, -2.0]) for item in items]
    scored = score_predictions(qa, [table_io.build_table("predictions", said)])
    train = table_io.build_table("qa", [make_question("t", "temporal", ["x", "y"], "x", ["other"], split="train")])
    rows = build_leaderboard(qa, train, [scored], seed=1, resamples=50, pairs={}).leaderboard
    cells = {row["set"]: row for row in rows if (row["model"], row["metric"], row["part"]) == ("m", "accuracy", "all")}
    assert {name: (row["value"], row["n"]) for name, row in cells.items()} == {
        "temporal": (1, 1), "rad": (1, 1), "medframeqa": (0.5, 2), "held_in": (1, 1), "held_out": (1, 1),
    }  # fmt: skip
    board = Leaderboard(table_io.build_table("leaderboard", rows).to_pandas())
    assert board.sets_by_sum("accuracy") == [
        ("held_in", ["held_in", "temporal"]), ("held_out", ["held_out", "rad"]), ("further", ["medframeqa"]),
    ]  # fmt: skip


def test_the_audit_counts_what_a_further_set_shares_with_training(tmp_path: Path) -> None:
    rows, shown, _, _ = imported(
        "medframeqa", made.write_medframeqa(tmp_path / "set", [made.make_video_question(n) for n in range(4)])
    )
    images.write_images(tmp_path / "images.parquet", shown)
    assert all(i in ImageStore([tmp_path / "images.parquet"]) for row in rows for i in row["image_ids"])
    leaked = make_question("t", "comparison", ["x", "y"], "x", ["p"], image_ids=[rows[2]["image_ids"][0], "other"], split="train")
    table_io.write_table(
        tmp_path / "train.parquet", "qa", [leaked, make_question("u", "comparison", ["x", "y"], "x", rows[0]["patient_ids"])]
    )
    table_io.write_table(tmp_path / "benchmark.parquet", "qa", [*rows, make_question("v", "rad", ["x", "y"], "x", ["p"])])
    _, audits = audit_files([tmp_path / "train.parquet"], [tmp_path / "benchmark.parquet"])
    found = audits["medframeqa"].compute_figures()
    assert (found["records"], found["patients"]) == (4, 2)
    assert found["shares_image_with_train"] == 1
    assert found["shares_patient_with_train"] == 2  # both questions of the first video


def test_a_set_whose_card_states_no_licence_is_under_that_of_its_module(tmp_path: Path, program: Program) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data").write_text("x")
    index, cfg = tmp_path / "set.parquet", config_file({"card": True, "licence": "CC BY 4.0"})
    assert program("index_files.py", "--root", tmp_path / "set", "--index", index, "--cfg", cfg)[0] == 0
    assert DataPolicy.from_table(index).licences == {"CC BY 4.0"}


def test_every_module_that_is_found_is_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXTERNAL_SETS == ("medframeqa", "medxpertqa")
    for name in EXTERNAL_SETS:
        external_set = load_external_set(name)
        assert Terms(**external_set.describe_terms()).title == f"{external_set.label}, {external_set.repository}"
    monkeypatch.setattr(medframeqa, "EXTERNAL_SET", "MedFrameQA")
    with pytest.raises(UserError, match=r"medframeqa\.py: EXTERNAL_SET is no ExternalSet"):
        load_external_set("medframeqa")


def make_cases(root: Path, *loads: Callable[[], bytes]) -> HeldoutImporter:
    """A set of questions about a good picture and one that is loaded so, which the index has as n.png."""
    cases = []
    for number, load in enumerate(loads):
        good = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 9), dtype=np.uint8)).save(good, "PNG")
        shown = (("good.png", good.getvalue), (f"{number}.png", load))
        cases.append(Case(file="q.jsonl", item=f"record {number}", id=str(number), question="?", options=("a", "b"), gold=0,
                          images=shown, patient=str(number), task="t"))  # fmt: skip
    index = {f"{number}.png": "" for number in range(len(loads))}
    return HeldoutImporter("medxpertqa", root, lambda root: cases, index, 64)


def raise_error(error: Exception) -> bytes:
    raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "x"), "1.png: can't be read: Permission denied (EACCES): ask its owner"),
        (OSError(errno.ESTALE, "x"), "1.png: can't be read: Stale file handle (ESTALE): the disk or the network failed"),
        (FileNotFoundError(errno.ENOENT, "x"), "1.png: can't be read: No such file or directory (ENOENT): it was there"),
        (MemoryError(), "1.png: not enough memory to read it"),
    ],
)
def test_a_read_error_is_no_bad_question(tmp_path: Path, error: Exception, message: str) -> None:
    done = make_cases(tmp_path, lambda: b"no image", partial(raise_error, error))
    with pytest.raises(UserError, match=re.escape(message)):
        list(done.iter_image_rows())
    assert [r.reason for r in done.rejected] == ["0.png: can't be decoded: no image format that Pillow knows"]


def test_what_a_member_or_its_bytes_say_is_a_rejection(tmp_path: Path) -> None:
    loads = [
        partial(raise_error, e) for e in (FileNotFoundError("no image x"), BadZipFile("Bad CRC-32"), RuntimeError("encrypted"))
    ]
    done = make_cases(tmp_path, *loads)
    assert list(done.iter_image_rows()) == []
    assert [r.reason for r in done.rejected] == [
        "0.png: no image x",
        "1.png: BadZipFile: Bad CRC-32",
        "2.png: RuntimeError: encrypted",
    ]

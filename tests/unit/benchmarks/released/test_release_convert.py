import json
from pathlib import Path

import pytest
import release_made as made

from config_files import config_file
from medmim.benchmarks.released import records
from medmim.benchmarks.released.convert import convert_records
from medmim.benchmarks.released.records import Slot
from medmim.common import files
from medmim.questions.prompt import prompt_text, target_text
from medmim.questions.validation import check_row
from medmim.tables import table_io

SLOT = Slot("benchmark", "temporal", "temporal")
OUT = ("train", "benchmark", "rejected")


def run(index: Path, out: Path, cfg: dict[str, float] | None = None, *more: object) -> made.ProgramResult:
    outputs = [part for name in OUT for part in (f"--{name}", out / f"{name}.parquet")]
    return made.run_program("import_release.py", "--index", index, *outputs, "--cfg", config_file(cfg or {}), *more)


def read(out: Path) -> list[list[dict]]:
    return [
        table_io.read_table(out / f"{name}.parquet", kind).to_pylist()
        for name, kind in zip(OUT, ("qa", "qa", "rejected"), strict=True)
    ]


def reasons(*records_made: dict) -> list[str]:
    read_back = records.parse_records(json.dumps(list(records_made)).encode(), "made.json")
    return [r["reason"] for r in convert_records([(SLOT, "0" * 64, read_back)]).rejected]


def test_the_released_files_become_questions(release_files, tmp_path):
    index = tmp_path / "release" / files.INDEX_NAME
    assert not made.run_program("fetch_release.py", "--release", *sorted(release_files.iterdir()), "--index", index).returncode
    done = run(index, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3228 train, 944 benchmark questions; of 4172 records 0 unusable, 0 repeats" in done.stderr
    train, benchmark, rejected = read(tmp_path)
    assert (len(train), len(benchmark), rejected) == (3228, 944, [])
    sets = {(r["split"], r["set"], r["ability"]) for r in train + benchmark}
    assert sets == {
        ("train", "comparison", "comparison"),
        ("benchmark", "comparison", "comparison"),
        ("benchmark", "odir", "comparison"),
    }
    assert not [problem for row in train + benchmark for problem in check_row(row)]
    assert len({r["qa_id"] for r in benchmark}) == 944
    assert sum(r["kind"] == "closed" for r in benchmark) == 508
    # The text that a model will read, and should answer, is the released one.
    released = records.read_records(release_files / "Med_MIM_benchmark_Held_in_Comparison.json")
    for record, row in zip(released, benchmark, strict=False):
        content, answer = (text.strip() for _, text in record.turns)
        assert prompt_text(row["question"], row["options"]) == content
        assert target_text(row["options"], row["answer_index"], row["answer"]) == answer
        assert row["image_ids"] == [f"release/{path}" for path in record.images]
        assert row["task"] == record.source
        assert row["findings"] == []
    row = benchmark[0]
    assert row["source"] == "ms_cxr_t"
    assert row["patient_ids"] == ["ms_cxr_t/17950066"]
    assert row["generator"] == "released/" + files.hash_file(release_files / "Med_MIM_benchmark_Held_in_Comparison.json")[:12]


def test_two_imports_give_the_same_bytes(tmp_path):
    made.write_records(tmp_path / "in" / made.TRAIN, [made.make_record(n) for n in range(5)])
    made.write_records(tmp_path / "in" / made.BENCHMARK, [made.make_record(n, options=(), answer="worse") for n in range(5)])
    index = made.index_folder(tmp_path / "in")
    for out in ("one", "two"):
        assert run(index, tmp_path / out).returncode == 0
    for name in OUT:
        assert (tmp_path / "one" / f"{name}.parquet").read_bytes() == (tmp_path / "two" / f"{name}.parquet").read_bytes()


def test_repeated_options_and_ids_are_kept():
    twice = made.make_record(1, options=("x", "y", "y"), answer="C: y")
    result = convert_records(
        [(SLOT, "0" * 64, records.parse_records(json.dumps([twice, made.make_record(1)]).encode(), "made.json"))]
    )
    assert result.rejected == []
    assert result.rows["benchmark"][0]["answer_index"] == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (made.make_record(placeholders=1), "1 <image> placeholders for 2 images"),
        (made.make_record(placeholders=3), "3 <image> placeholders for 2 images"),
        (made.make_record(placeholders=1, text="Here <image> and?"), "an <image> placeholder is not in front of the text"),
        (made.make_record(images=[], placeholders=0), "no image"),
        (made.make_record(images=["a/b.png", "a/c.png"]), "image path 'a/b.png' is of no known source; image path 'a/c.png'"),
        (made.make_record(images=["synpic1.jpg", *made.make_chest_paths(1, 1)]), "images of several sources: ms_cxr_t, vqa_rad"),
        (made.make_record(answer="B: first"), "the answer 'B: first' is not among the options (A: first; B: second)"),
        (made.make_record(options=(), answer="C: third"), "the answer 'C: third' is not among the options (none)"),
        (made.make_record(answer="neither"), "the answer 'neither' is not among the options"),
        (made.make_record(options=("only",), answer="A: only"), "a closed question with 1 options"),
        (made.make_record(options=("x", ""), answer="A: x"), "an option is empty"),
        (made.make_record(text=" "), "the question has no text"),
        (made.make_record(options=(), answer=" \n"), "the answer is empty"),
    ],
)
def test_what_cannot_be_used_is_listed_with_its_reason(record, reason):
    found = reasons(record)
    assert len(found) == 1
    assert found[0].startswith(reason)


def test_a_question_of_both_splits_stays_in_both():
    train, benchmark = (
        records.parse_records(json.dumps([made.make_record()]).encode(), name) for name in (made.TRAIN, made.BENCHMARK)
    )
    result = convert_records([(Slot("train", "temporal", "temporal"), "0" * 64, train), (SLOT, "1" * 64, benchmark)])
    assert {split: len(rows) for split, rows in result.rows.items()} == {"train": 1, "benchmark": 1}


def test_more_than_one_exchange_is_listed():
    long = made.make_record()
    long["conversation"] *= 2
    assert "4 turns, expected one question and its answer" in reasons(long)[0]


def test_rejections_name_file_record_and_line(tmp_path):
    made.write_records(
        tmp_path / "in" / "sub" / made.BENCHMARK, [made.make_record(1), made.make_record(2, answer="C: no"), made.make_record(1)]
    )
    assert run(made.index_folder(tmp_path / "in"), tmp_path, {"max_rejected": 0.4}).returncode == 0
    train, benchmark, rejected = read(tmp_path)
    assert (len(train), len(benchmark)) == (0, 1)
    assert [r["stage"] for r in rejected] == ["import_release"] * 2
    assert rejected[0]["item"] == f"sub/{made.BENCHMARK}, record 2 (line 20, id 'made-2')"
    assert rejected[1]["reason"].startswith(f"repeats sub/{made.BENCHMARK}, record 1 (line 2, id 'made-1')")


@pytest.mark.parametrize(
    ("cfg", "stops"),
    [({}, True), ({"max_rejected": 0.24}, True), ({"max_rejected": 0.25}, False), ({"max_rejected": 1}, False)],
)
def test_too_many_unusable_records_stop_the_import(tmp_path, cfg, stops):
    good = [made.make_record(n) for n in range(3)]
    made.write_records(tmp_path / "in" / made.BENCHMARK, [*good, made.make_record(9, answer="C: no")])
    done = run(made.index_folder(tmp_path / "in"), tmp_path / "out", cfg)
    assert (done.returncode == 1) == stops
    if stops:
        assert "1 of 4 released records can't be used" in done.stderr
        assert "  1 × the answer 'C: no' is not among the options" in done.stderr
        assert "record 4 (line 56, id 'made-9')\n" in done.stderr
        assert "Traceback" not in done.stderr
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["rejected.failed.csv"]


def cut(folder: Path) -> None:
    path = folder / made.BENCHMARK
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (cut, f"{made.BENCHMARK}:"),
        (lambda f: (f / made.BENCHMARK).rename(f / "mine.json"), "mine.json: the name does not say where"),
        (lambda f: (f / made.BENCHMARK).rename(f / "notes.txt"), "no .json file"),
        (lambda f: (f / made.BENCHMARK).rename(f / made.TRAIN), "no benchmark question among 1 files"),
    ],
)
def test_a_folder_that_is_not_the_release_is_refused(tmp_path, change, expected):
    made.write_records(tmp_path / "in" / made.BENCHMARK, [made.make_record()])
    change(tmp_path / "in")
    done = run(made.index_folder(tmp_path / "in"), tmp_path / "out")
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [(Path.unlink, "but not there"), (Path.touch, None), (lambda p: made.write_records(p, []), "changed since")],
)
def test_files_must_be_those_of_the_index(tmp_path, change, expected):
    path = made.write_records(tmp_path / "in" / made.BENCHMARK, [made.make_record()])
    index = made.index_folder(tmp_path / "in")
    change(path)
    done = run(index, tmp_path / "out")
    assert done.returncode == (1 if expected else 0)
    assert not expected or expected in done.stderr


def test_hidden_files_are_not_read(tmp_path):
    made.write_records(tmp_path / "in" / made.BENCHMARK, [made.make_record()])
    for hidden in (f"._{made.BENCHMARK}", f".git/{made.BENCHMARK}"):
        (tmp_path / "in" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / hidden).write_bytes(b"\x00\x05")
    assert run(made.index_folder(tmp_path / "in"), tmp_path).returncode == 0

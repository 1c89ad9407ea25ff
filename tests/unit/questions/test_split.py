"""The merge: as many as asked for, balanced, without leaks, whatever the order of its inputs."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from qa_made import HELD_IN, SOURCES, make_source_tables

from config_files import config_file
from medmim.config import source_plugins
from medmim.questions.row import Row, question_row
from medmim.questions.split import EmptySetError, allocate_evenly, merge_questions, select_rows
from medmim.questions.validation import check_row
from medmim.sources import terms
from medmim.tables import table_io
from medmim.tables.data_policy import DataPolicy

TRAIN = {"temporal": 200, "reasoning": 100, "comparison": 50, "coreference": 200, "composed": 90}
MIMIC, ODIR = terms.source_policy("ms_cxr_t", True), terms.source_policy("odir", False)
BENCHMARK = {"temporal": 30, "reasoning": 30, "comparison": 12, "coreference": 40, "rad": 30, "odir": 30}


@pytest.fixture(scope="module")
def pool() -> list[Row]:
    """Questions of all sources."""
    return [
        r
        for s in SOURCES
        for r in make_source_tables(s, 80 if s in HELD_IN else 30).generate_questions(pretrain=s not in ("vqa_rad", "odir"))
    ]


def test_counts_balance_and_order(pool: list[Row]) -> None:
    merged = merge_questions(pool, seed=3, train=TRAIN, benchmark=BENCHMARK, pretrain=400)
    assert Counter(r["set"] for r in merged.splits["train"]) == TRAIN
    assert Counter(r["set"] for r in merged.splits["benchmark"]) == BENCHMARK
    assert Counter(r["set"] for r in merged.splits["pretrain"]) == {"single": 200, "text": 200}
    assert merged.short == []
    reversed_ = merge_questions(pool[::-1], seed=3, train=TRAIN, benchmark=BENCHMARK, pretrain=400)
    assert reversed_.splits == merged.splits
    assert merge_questions(pool, seed=4, train=TRAIN, benchmark=BENCHMARK, pretrain=400).splits != merged.splits
    train = [r for r in merged.splits["train"] if r["kind"] == "closed"]
    tasks = Counter(r["task"] for r in train if r["set"] == "coreference")
    assert max(tasks.values()) - min(tasks.values()) <= 1
    for name in ("temporal", "coreference", "comparison"):
        rows = [r for r in train if r["set"] == name]
        for n in {len(r["options"]) for r in rows}:
            letters = Counter(r["answer_index"] for r in rows if len(r["options"]) == n)
            assert len(letters) == n
            assert max(letters.values()) <= 1.2 * min(letters.values()) + 4, (name, letters)
    golds = Counter(r["answer"] for r in train if r["task"] == "embed_typeD")
    assert max(golds.values()) <= 1.5 * min(golds.values()) + 2


def test_no_patient_or_image_of_the_benchmark_is_in_training(pool: list[Row]) -> None:
    held = next(r for r in pool if r["split"] == "benchmark" and r["source"] == "ms_cxr_t")
    donor = next(r for r in pool if r["split"] == "train" and r["source"] == "ms_cxr_t" and r["kind"] == "closed")
    by_patient = donor | {"qa_id": "a" * 16, "patient_ids": held["patient_ids"]}
    by_image = donor | {"qa_id": "b" * 16, "image_ids": held["image_ids"]}
    merged = merge_questions([*pool, by_patient, by_image], seed=3, train=TRAIN, benchmark=BENCHMARK, pretrain=400)
    reasons = {r["item"].split()[-1]: r["reason"] for r in merged.rejected}
    assert reasons["a" * 16] == f"patient {held['patient_ids'][0]} is in the benchmark"
    assert reasons["b" * 16].startswith(f"image {held['image_ids'][0]} is in the benchmark")
    for column in ("patient_ids", "image_ids"):
        benchmark = {v for r in merged.splits["benchmark"] for v in r[column]}
        assert benchmark.isdisjoint(v for s in ("train", "pretrain") for r in merged.splits[s] for v in r[column])


def test_unsound_and_repeated_rows_are_listed(pool: list[Row]) -> None:
    closed = next(r for r in pool if r["kind"] == "closed" and r["split"] == "train")
    bad = closed | {"qa_id": "c" * 16, "answer": "none of these"}
    few = closed | {"qa_id": "d" * 16, "question": closed["question"].removeprefix("<image>")}
    unknown = closed | {"qa_id": "e" * 16, "image_ids": ["gone"] * len(closed["image_ids"])}
    images = {i for r in pool for i in r["image_ids"]}
    extra = [bad, few, unknown, dict(closed)]
    merged = merge_questions([*pool, *extra], seed=3, train=TRAIN, benchmark=BENCHMARK, images=images)
    reasons = {r["item"].split()[-1]: r["reason"] for r in merged.rejected}
    assert "not among the options" in reasons["c" * 16]
    assert "placeholders for" in reasons["d" * 16]
    assert "no image gone" in reasons["e" * 16]
    assert reasons[closed["qa_id"]].startswith("same question as in")
    assert len(merged.rejected) == 4
    kept = [r for rows in merged.splits.values() for r in rows]
    assert all(check_row(r, images) == [] for r in kept)
    assert len({r["qa_id"] for r in kept}) == len(kept)


def test_empty_set_names_the_source_that_would_supply_it(pool: list[Row]) -> None:
    rows = [r for r in pool if r["source"] != "vqa_rad"]
    with pytest.raises(EmptySetError, match=r"benchmark\.rad: 30 questions wanted, none found; source vqa_rad would supply them"):
        merge_questions(rows, seed=3, train=TRAIN, benchmark=BENCHMARK)
    assert merge_questions(rows, seed=3, train=TRAIN, benchmark=BENCHMARK | {"rad": 0}).splits["benchmark"]
    with pytest.raises(EmptySetError, match=r"no such set: benchmark\.composed"):
        merge_questions(pool, seed=3, train=TRAIN, benchmark={"composed": 5})


def test_shortage_is_reported_not_padded(pool: list[Row]) -> None:
    merged = merge_questions(pool, seed=3, train={}, benchmark={"rad": 10_000})
    n, taken = sum(r["set"] == "rad" for r in pool), len(merged.splits["benchmark"])
    uneven = f"; {n - taken} more would let the texts alone tell the answer" if taken < n else ""
    assert merged.short == [f"benchmark.rad: {taken} of 10000 questions{uneven}"]
    assert n - taken < 0.1 * n
    assert merged.splits["pretrain"] == []


def test_selection_changes_little_as_data_are_added() -> None:
    few, many = (
        {
            r["qa_id"]
            for r in select_rows(
                [r for r in make_source_tables("embed", n).generate_questions() if r["task"] == "embed_typeD"], 60, 3
            )
        }
        for n in (80, 84)
    )
    assert len(few & many) > 30


def _make_pairs(count: int) -> list[Row]:
    """Questions about two eyes, each option two diagnoses: the gold is two unlike ones in five of six, and seldom first."""
    rng = np.random.default_rng(0)
    names = [f"disease {n}" for n in range(40)]
    rows = []
    for n in range(count):
        a, b = rng.choice(names, 2, replace=False)
        options = [f"left {x}, right {y}" for x in (a, b) for y in (a, b)]
        alike, unlike = (options[0], options[3]), (options[1], options[2])
        gold = str(rng.choice(unlike if rng.random() < 5 / 6 else alike))
        rng.shuffle(options)
        images = (f"{n}-l", f"{n}-r")
        rows.append(
            question_row(
                split="benchmark", ability="comparison", set="odir", task="odir", text="What do the eyes show?", options=options,
                answer=gold, image_ids=images, patient_ids=[f"p{n}"], source="odir", generator="test",
            )
        )  # fmt: skip
    return rows


def test_options_made_of_parts_are_even_part_by_part() -> None:
    rows = _make_pairs(1500)

    def share_unlike(chosen: list[Row]) -> float:
        return sum(len(set(re.findall(r"disease \d+", r["answer"]))) == 2 for r in chosen) / len(chosen)

    assert share_unlike(select_rows(rows, 300, 3)) > 0.8
    even = select_rows(rows, 300, 3, even=True)
    assert len(even) == 300
    assert abs(share_unlike(even) - 0.5) < 0.04
    for n in (50, 150):  # the first of them as well as all
        assert abs(share_unlike(select_rows(rows, n, 3, even=True)) - 0.5) < 0.12
    assert select_rows(rows[::-1], 300, 3, even=True) == even


def test_a_number_of_images_does_not_tell_the_gold() -> None:
    rows = [
        question_row(
            split="benchmark", ability="temporal", set="temporal", task="t", text="Stable or worse?",
            options=["stable", "worse"], answer="worse" if (n % 5 == 0) ^ (n % 2) else "stable",
            image_ids=[f"{n}-{k}" for k in range(2 + n % 2)], patient_ids=[f"p{n}"], source="embed", generator="test",
        )
        for n in range(1000)
    ]  # fmt: skip
    even = select_rows(rows, 300, 3, even=True)
    assert len(even) == 300
    for count in (2, 3):
        golds = Counter(r["answer"] for r in even if len(r["image_ids"]) == count)
        assert max(golds.values()) < 0.56 * golds.total(), golds
    uneven = Counter(r["answer"] for r in select_rows(rows, 300, 3) if len(r["image_ids"]) == 3)
    assert max(uneven.values()) > 0.7 * uneven.total()


def test_shares() -> None:
    assert allocate_evenly({"a": 5, "b": 1, "c": 9}, 9) == {"a": 4, "b": 1, "c": 4}
    assert allocate_evenly({"a": 1, "b": 1}, 9) == {"a": 1, "b": 1}
    assert allocate_evenly({"a": 0}, 3) == {"a": 0}


def test_new_images_come_before_new_words_for_old_ones() -> None:
    rows = [
        r
        for r in make_source_tables("ms_cxr_t", 90).generate_questions(benchmark_fraction=0.0, open_fraction=0.0)
        if r["task"].endswith("edema")
    ]
    assert len(rows) > 20
    pairs = [tuple(r["image_ids"]) for r in select_rows(rows, 9, 3)]
    assert len(set(pairs)) >= 7


def program(name: str, monkeypatch: pytest.MonkeyPatch, *argv: object) -> None:
    """Run a program of workflow/scripts in this process."""
    import runpy

    path = Path(__file__).parents[3] / "workflow" / "scripts" / name
    monkeypatch.setattr("sys.argv", [str(path), *map(str, argv)])
    runpy.run_path(str(path), run_name="__main__")


def write(folder: Path, source: str) -> dict[str, Path]:
    frames = make_source_tables(source, 40).to_frames()
    paths = {name: folder / f"{source}.{name}.parquet" for name in ("images", "findings")}
    images = (
        frames["images"]
        .assign(source=source, width=1, height=1, bytes=b"x", thumbnail=bytes(4096), origin_sha256="0")
        .astype({"day": object})
    )
    table_io.write_table(paths["images"], "images", images)
    table_io.write_table(
        paths["findings"], "findings", frames["findings"].assign(source=source, origin_file="t.csv", origin_row=1)
    )
    return paths


def test_programs_from_tables_to_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = {"seed": 3, "benchmark_fraction": 0.3, "open_fraction": 0.1, "pretrain": False}
    qa = []
    for source in ("ms_cxr_t", "odir"):
        paths = write(tmp_path, source)
        qa.append(tmp_path / f"{source}.qa.parquet")
        options = [o for name, path in paths.items() for o in (f"--{name}", path)]
        own = config_file(cfg | {"sets": source_plugins.SOURCES[source].list_sets()})
        program("generate_qa.py", monkeypatch, "--source", source, *options, "--qa", qa[-1], "--cfg", own)
    made_splits = [x for s in ("train", "benchmark", "pretrain", "rejected") for x in (f"--{s}", tmp_path / f"{s}.parquet")]
    images = [tmp_path / f"{s}.images.parquet" for s in ("ms_cxr_t", "odir")]
    counts = {"seed": 3, "train": {"comparison": 20}, "benchmark": {"comparison": 500, "odir": 20}, "pretrain": 0}
    argv = ["--qa", *qa, "--images", *images, *made_splits]
    program("merge_qa.py", monkeypatch, *argv, "--cfg", config_file(counts))
    assert table_io.read_table(tmp_path / "train.parquet", "qa").num_rows == 20
    assert Counter(table_io.read_table(tmp_path / "benchmark.parquet", "qa")["set"].to_pylist())["odir"] == 20
    prov = json.loads((tmp_path / "benchmark.parquet.prov.json").read_text())
    assert prov["short"][0].startswith("benchmark.comparison: ")
    before = {p: p.read_bytes() for p in tmp_path.glob("*.parquet")}
    program("merge_qa.py", monkeypatch, *argv, "--cfg", config_file(counts))
    assert {p: p.read_bytes() for p in before} == before

    for source, policy in (("ms_cxr_t", MIMIC), ("odir", ODIR)):
        path = tmp_path / f"{source}.qa.parquet"
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **policy.to_metadata()}), path)
    program("merge_qa.py", monkeypatch, *argv, "--cfg", config_file(counts))
    policies = {"train": MIMIC, "benchmark": MIMIC | ODIR, "pretrain": DataPolicy(), "rejected": MIMIC | ODIR}
    assert {name: DataPolicy.from_table(tmp_path / f"{name}.parquet") for name in policies} == policies
    record = json.loads((tmp_path / "train.parquet.prov.json").read_text())["policies"]
    assert {name: DataPolicy.from_record(fields) for name, fields in record.items()} == policies

    counts["benchmark"] = {"rad": 5}
    with pytest.raises(SystemExit):
        program("merge_qa.py", monkeypatch, *argv, "--cfg", config_file(counts))
    assert "source vqa_rad would supply them" in capsys.readouterr().err


def test_a_source_without_images_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "findings"):
        table_io.write_table(tmp_path / f"{name}.parquet", name, [])
    cfg = {"seed": 3, "benchmark_fraction": 0.3, "open_fraction": 0.1, "pretrain": False}
    with pytest.raises(SystemExit):
        program(
            "generate_qa.py", monkeypatch, "--source", "odir", "--images", tmp_path / "images.parquet",
            "--findings", tmp_path / "findings.parquet", "--qa", tmp_path / "qa.parquet", "--cfg", config_file(cfg),
        )  # fmt: skip
    assert "no images; nothing can be asked of source odir" in capsys.readouterr().err
    assert not (tmp_path / "qa.parquet").exists()

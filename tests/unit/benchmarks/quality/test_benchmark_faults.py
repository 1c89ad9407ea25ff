import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import release_made as made

from medmim.benchmarks.quality.faults import FAULTS, audit_files, read_sets
from medmim.benchmarks.quality.page import FAULT_MEANINGS, AuditReport, render_page
from medmim.benchmarks.released.records import ReleaseError
from medmim.common import files
from medmim.provenance.code_digest import WORKFLOW
from medmim.questions.copies import CopyIndex
from medmim.questions.row import question_row
from medmim.reporting.report.audits import RELEASE_COUNTS
from medmim.tables import table_io
from medmim.tables.images import encode_png, write_images

KEYS = {"records", "closed", "open", *FAULTS, "letters", "patients", "largest_patient", "chance", "majority"}


def figures(tmp_path: Path, benchmark: list, train: list | None = None) -> dict:
    train_file = made.write_records(tmp_path / "train.json", train or [made.make_record(999)])
    _, audits = audit_files([train_file], [made.write_records(tmp_path / "set.json", benchmark)])
    return audits["set.json"].compute_figures()


def test_the_released_files(release_files, tmp_path):
    program = [sys.executable, WORKFLOW / "scripts" / "audit_release.py"]
    done = subprocess.run([
        *program, "--train", release_files, "--benchmark", release_files,
        "--json", tmp_path / "audit.json", "--html", tmp_path / "audit.html",
    ], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "audit.json").read_text())
    assert list(found) == ["Med_MIM_benchmark_Held_in_Comparison.json", "Med_MIM_benchmark_Held_out_ODIR.json"]
    assert all(
        set(figures) == KEYS | {"constant", "text_only", "text_only_within", "metadata_only_within"} for figures in found.values()
    )
    comparison, odir = found.values()
    none = {"duplicate_records": 0, "gold_not_in_options": 0, "placeholder_mismatch": 0}
    assert comparison | none == comparison
    assert odir | none == odir
    assert {k: comparison[k] for k in ("records", "closed", "open", "duplicate_ids", "duplicate_options", "patients")} == {
        "records": 344,
        "closed": 208,
        "open": 136,
        "duplicate_ids": 344 - 296,
        "duplicate_options": 0,
        "patients": 198,
    }
    assert [comparison[leak] for leak in FAULTS[:3]] == [210, 218, 234]
    assert comparison["letters"] == {"A": 68, "B": 56, "C": 43, "D": 41}
    assert comparison["chance"] == pytest.approx((114 / 4 + 47 / 3 + 47 / 2) / 208)
    assert comparison["majority"] == 68 / 208
    assert comparison["largest_patient"] == {"patient": "lumiere/Patient-069", "records": 39, "share": 39 / 344}
    assert (odir["records"], odir["closed"], odir["duplicate_options"], odir["duplicate_ids"]) == (600, 300, 102, 0)
    assert [odir[leak] for leak in FAULTS[:3]] == [0, 0, 0]
    assert odir["patients"] == 600
    html = (tmp_path / "audit.html").read_text()
    assert "VQA_RAD-2" in html
    assert "record 3, line 38" in html
    assert not re.search(r"<(script|link|img)|url\(|https?://", html)  # self-contained


def test_released_leaks_are_all_of_ms_cxr_t(release_files):
    train = release_files / "Med_MIM_train_inherent_Comparison.json"
    _, audits = audit_files([train], [release_files / "Med_MIM_benchmark_Held_in_Comparison.json"])
    (found,) = audits.values()
    assert {s: len(a.where["shares_patient_with_train"]) for s, a in found.sources.items()} == {"lumiere": 0, "ms_cxr_t": 234}
    assert len(found.sources["ms_cxr_t"].entries) == 270


def test_a_clean_set(tmp_path):
    records = [
        made.make_record(1, answer="A: first"),
        made.make_record(2),
        made.make_record(3, options=(), answer="both"),
        made.make_record(4),
    ]
    assert figures(tmp_path, records) == {
        "records": 4,
        "closed": 3,
        "open": 1,
        **dict.fromkeys(FAULTS, 0),
        "letters": {"A": 1, "B": 2},
        "patients": 4,
        "largest_patient": {"patient": "ms_cxr_t/1", "records": 1, "share": 0.25},
        "chance": 0.5,
        "majority": 2 / 3,
    }


def test_leaks_are_graded(tmp_path):
    train = [made.make_record(1), made.make_record(2), made.make_record(3), made.make_record(4)]
    benchmark = [
        made.make_record(1, text="Another question?"),  # the same images
        made.make_record(2, images=made.make_chest_paths(2, 2, 1)),  # the same, in another order
        made.make_record(3, images=made.make_chest_paths(3, 1, 1)),  # one of them, twice
        made.make_record(4, images=made.make_chest_paths(4, 1, 2, 3)),  # both, and a third
        made.make_record(5, images=made.make_chest_paths(4, 7, 8)),  # other images of a patient
        made.make_record(6),
    ]
    found = figures(tmp_path, benchmark, train)
    assert [found[leak] for leak in FAULTS[:3]] == [2, 4, 5]


def test_repeats_are_counted_beyond_the_first(tmp_path):
    same, other = made.make_record(1), made.make_record(2)
    renamed = made.make_record(1) | {"id": "another"}
    found = figures(tmp_path, [same, other | {"id": "made-1"}, renamed, same, made.make_record(3)])
    assert found["duplicate_ids"] == 2  # made-1 stands three times
    assert found["duplicate_records"] == 2  # renamed, and same again
    assert found["records"] == 5


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (made.make_record(options=("x", "y", "y"), answer="B: y"), "duplicate_options"),
        (made.make_record(options=("x", "y ", "y"), answer="A: x"), "duplicate_options"),
        (made.make_record(answer="A: second"), "gold_not_in_options"),
        (made.make_record(options=(), answer="A: second"), "gold_not_in_options"),
        (made.make_record(placeholders=1), "placeholder_mismatch"),
        (made.make_record(placeholders=3), "placeholder_mismatch"),
        (made.make_record(placeholders=0), "placeholder_mismatch"),
    ],
)
def test_a_fault_of_a_record_is_counted_alone(tmp_path, record, fault):
    found = figures(tmp_path, [made.make_record(7), record, made.make_record(8)])
    assert {f: found[f] for f in FAULTS} == dict.fromkeys(FAULTS, 0) | {fault: 1}


def test_letters_skew_and_baselines(tmp_path):
    golds = ["A: a"] * 5 + ["B: b"] * 2 + ["C: c"]
    found = figures(tmp_path, [made.make_record(n, options=("a", "b", "c"), answer=gold) for n, gold in enumerate(golds)])
    assert found["letters"] == {"A": 5, "B": 2, "C": 1}
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["majority"] == 5 / 8
    only_open = figures(tmp_path, [made.make_record(1, options=(), answer="yes")])
    assert (only_open["chance"], only_open["majority"], only_open["letters"]) == (None, None, {})


def test_the_largest_patient(tmp_path):
    records = [
        made.make_record(n, images=made.make_chest_paths(patient, n, n + 100)) for n, patient in enumerate([5, 6, 6, 7, 6])
    ]
    found = figures(tmp_path, records)
    assert found["patients"] == 3
    assert found["largest_patient"] == {"patient": "ms_cxr_t/6", "records": 3, "share": 0.6}


def test_images_of_no_known_source_are_patients_of_their_own(tmp_path):
    train = [made.make_record(1, images=["x/a.png", "x/b.png"])]
    found = figures(
        tmp_path, [made.make_record(1, images=["x/a.png", "x/c.png"]), made.make_record(2, images=["x/d.png"])], train
    )
    assert found["patients"] == 3
    assert [found[leak] for leak in FAULTS[:3]] == [0, 1, 1]


def row(number: int, split: str, where: str, images: list[str], patient: str, **parts: object) -> dict:
    asked = {"text": f"Question {number}?", "options": ["x", "y"], "answer": "x"} | parts
    return question_row(
        split=split, ability="temporal", set=where, task="t", image_ids=images, patient_ids=[f"embed/{patient}"],
        source="embed", generator="templates/1", **asked,
    )  # fmt: skip


def test_leaks_and_faults_in_our_tables_are_found_by_set(tmp_path):
    train = [row(1, "train", "temporal", ["i1", "i2"], "1"), row(2, "train", "composed", ["i3"], "2")]
    benchmark = [
        row(3, "benchmark", "temporal", ["i2", "i1"], "1"),
        row(4, "benchmark", "temporal", ["i3", "i9"], "2"),
        row(5, "benchmark", "temporal", ["i8", "i9"], "2"),
        row(6, "benchmark", "temporal", ["i5", "i6"], "5", options=["x", "x", "z"], answer="z"),
        row(7, "benchmark", "reasoning", ["i7", "i6"], "5", answer="no option"),
        row(7, "benchmark", "reasoning", ["i7", "i6"], "5", answer="no option"),
        row(8, "benchmark", "reasoning", ["i7"], "5") | {"question": "Nothing to see?"},
        row(9, "benchmark", "reasoning", ["i7"], "5", options=[], answer="open"),
    ]
    table_io.write_table(tmp_path / "train.parquet", "qa", train)
    table_io.write_table(tmp_path / "benchmark.parquet", "qa", benchmark)
    _, audits = audit_files([tmp_path / "train.parquet"], [tmp_path / "benchmark.parquet"])
    found = {name: a.compute_figures() for name, a in audits.items()}
    assert list(found) == ["reasoning", "temporal"]
    assert {f: found["temporal"][f] for f in FAULTS} == dict.fromkeys(FAULTS, 0) | {
        "same_images_in_train": 1,
        "shares_image_with_train": 2,
        "shares_patient_with_train": 3,
        "duplicate_options": 1,
    }
    assert found["temporal"]["letters"] == {"A": 3, "C": 1}
    assert {f: found["reasoning"][f] for f in FAULTS} == dict.fromkeys(FAULTS, 0) | {
        "duplicate_ids": 1,
        "duplicate_records": 1,
        "gold_not_in_options": 2,
        "placeholder_mismatch": 1,
    }
    assert (found["reasoning"]["closed"], found["reasoning"]["open"]) == (3, 1)


def test_imported_tables_audit_as_the_files_do(release_files, tmp_path):
    outputs = [p for name in ("train", "benchmark", "rejected") for p in (f"--{name}", tmp_path / f"{name}.parquet")]
    index = tmp_path / "release" / files.INDEX_NAME
    assert not made.run_program("fetch_release.py", "--release", *sorted(release_files.iterdir()), "--index", index).returncode
    assert not made.run_program("import_release.py", "--index", index, *outputs).returncode
    train = release_files / "Med_MIM_train_inherent_Comparison.json"
    _, ours = audit_files([tmp_path / "train.parquet"], [tmp_path / "benchmark.parquet"])
    _, mixed = audit_files([train], [tmp_path / "benchmark.parquet"])
    for found in (ours, mixed):
        comparison, odir = (found[name].compute_figures() for name in ("comparison", "odir"))
        assert [comparison[leak] for leak in FAULTS[:3]] == [210, 218, 234]
        assert (comparison["closed"], comparison["patients"]) == (208, 198)
        assert (odir["closed"], odir["duplicate_options"]) == (300, 102)


def test_a_name_given_twice_is_refused(tmp_path):
    for folder in "ab":
        made.write_records(tmp_path / folder / "set.json", [made.make_record()])
    with pytest.raises(ReleaseError, match=r"set named set\.json already"):
        audit_files([tmp_path / "a" / "set.json"], [tmp_path / "a" / "set.json", tmp_path / "b" / "set.json"])


def test_a_file_that_cannot_be_read_leaves_nothing(tmp_path):
    train = made.write_records(tmp_path / "train.json", [made.make_record()])
    bad = tmp_path / "bad.json"
    bad.write_bytes(train.read_bytes()[:300])
    out = tmp_path / "out" / "audit.json"
    done = made.run_program("audit_release.py", "--train", train, "--benchmark", bad, "--json", out)
    assert done.returncode == 1
    assert re.search(r"bad\.json:\d+:\d+: the file is cut off inside record 1", done.stderr)
    assert "Traceback" not in done.stderr
    assert list(out.parent.iterdir()) == []
    assert (
        "does not exist"
        in made.run_program("audit_release.py", "--train", train, "--benchmark", tmp_path / "no.json", "--json", out).stderr
    )
    table = tmp_path / "other.parquet"
    table_io.write_table(table, "files", [{"path": "a", "bytes": 1, "sha256": "0"}])
    assert "not a qa table" in made.run_program("audit_release.py", "--train", table, "--benchmark", train, "--json", out).stderr


def test_pictures_that_tell_the_answer_are_told_by_the_audit(tmp_path):
    """Dark is stable and bright is worse, in 60 questions; the train split needs no images."""
    images, rows = [], []
    for n in range(60):
        image_id, png = encode_png(np.full((4, 4 + n), 40 if n % 2 else 200, np.uint8))
        columns = dict.fromkeys(
            ("study_id", "view", "laterality", "modality", "release_path", "origin_file", "origin_sha256"), "x"
        )
        size = {"image_id": image_id, "source": "embed", "patient_id": f"embed/{n}", "day": None, "width": 4 + n, "height": 4}
        images.append(columns | size | {"bytes": png, "thumbnail": bytes(4096)})
        rows.append(
            question_row(
                split="benchmark", ability="temporal", set="temporal", task="t", text="Stable or worse?",
                options=["stable", "worse"][:: 1 if n % 4 < 2 else -1], answer="stable" if n % 2 else "worse",
                image_ids=[image_id], patient_ids=[f"embed/{n}"], source="embed", generator="test",
            )
        )  # fmt: skip
    write_images(tmp_path / "images.parquet", images)
    table_io.write_table(tmp_path / "benchmark.parquet", "qa", rows)
    train = made.write_records(tmp_path / "train.json", [made.make_record()])
    done = made.run_program(
        "audit_release.py", "--train", train, "--benchmark", tmp_path / "benchmark.parquet", "--json", tmp_path / "audit.json",
        "--images", tmp_path / "images.parquet", "--html", tmp_path / "audit.html",
        "--statistics", tmp_path / "statistics.parquet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "audit.json").read_text())["temporal"]
    assert figures["metadata_only_within"] == 1
    assert figures["text_only_within"] < 0.8
    assert "Metadata only" in (tmp_path / "audit.html").read_text()
    table = table_io.read_table(tmp_path / "statistics.parquet", "statistics").to_pylist()
    statistics = {(r["statistic"], r["key"]): r["value"] for r in table if r["split"] == "benchmark"}
    assert statistics["guess", "metadata_only_within"] == 1
    assert statistics["fault", "duplicate_options"] == 0


def test_published_counts_are_those_of_the_files(release_files):
    for name, stem in (("comparison", "Held_in_Comparison"), ("odir", "Held_out_ODIR")):
        [(_, entries)] = read_sets(release_files / f"Med_MIM_benchmark_{stem}.json")
        closed = sum(e.closed for e in entries)
        assert (closed, len(entries) - closed) == RELEASE_COUNTS[name]


def test_the_page_tells_each_fault_in_words_and_escapes(tmp_path):
    faulty = [
        made.make_record(1),
        made.make_record(1, options=("x", "x"), answer="A: x") | {"id": "<b>bold</b>"},
        made.make_record(2, answer="C: <i>", placeholders=1),
        made.make_record(1),
        made.make_record(5, text="Which?\nA: one\nC: two", options=(), answer="A: one"),
    ]
    train = made.write_records(
        tmp_path / "train.json", [made.make_record(1), made.make_record(2, images=made.make_chest_paths(2, 1, 9))]
    )
    first, second = made.make_chest_paths(5, 1, 2), made.make_chest_paths(2, 9)
    copies = CopyIndex({f"release/{first[0]}": {f"release/{second[0]}": "near"}}, {})
    html = render_page([AuditReport.from_files("ours", [train], [made.write_records(tmp_path / "set.json", faulty)], copies)])
    for title, meaning in FAULT_MEANINGS.values():
        assert title in html.replace("&#39;", "'")
        assert meaning.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in html
    assert "&lt;b&gt;bold" in html
    assert "<b>bold" not in html
    assert "training record 1, line 2" in html

"""Images that the authors' release names, in folders in their owners' layout: each is found, or said why it is not."""

import csv
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import release_made as made

from config_files import config_file
from lumiere_made import ATLAS, MASK, write_ratings, write_volume
from medmim.benchmarks.released import records
from medmim.common import files
from medmim.questions.row import question_row
from medmim.sources.base import Adapter, ReleaseAdapter
from medmim.sources.contract import Phantom, load_part
from medmim.sources.released_pictures import ReleasedPictures
from medmim.tables import table_io

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")


def list_named(release_files: Path, source: str) -> list[list[str]]:
    """Image paths of each question of the real files that shows a source."""
    shown = [list(r.images) for path in sorted(release_files.glob("*.json")) for r in records.read_records(path)]
    return [paths for paths in shown if (records.origin_from_path(paths[0]) or ("",))[0] == source]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_ms_cxr_t(root: Path, shown: list[list[str]]) -> None:
    """The owner's table of every other pair, and MIMIC-CXR-JPG's tree."""
    rows = {}
    for previous, current in shown[::2]:
        _, subject, study, _ = current.split("/")
        ids = {"dicom_id": current[:-4], "previous_dicom_id": previous[:-4], "subject_id": subject[1:], "study_id": study[1:]}
        rows[current] = {**ids, "previous_study_id": previous.split("/")[2][1:], "edema_progression": "stable"}
    empty = dict.fromkeys((f"{finding}_progression" for finding in FINDINGS), "")
    for path in {path for pair in shown for path in pair}:
        touch(root / "files" / f"{path[:-4]}.jpg")
    pd.DataFrame([{**empty, **row} for row in rows.values()]).to_csv(
        root / "MS_CXR_T_temporal_image_classification_v1.0.0.csv", index=False
    )


def write_odir(root: Path, shown: list[list[str]]) -> None:
    """Kaggle's table of every other person, and all photographs."""
    columns = ("Left-Diagnostic Keywords", "Right-Diagnostic Keywords", *"NDGCAHMO")
    rows = []
    for left, right in shown:
        person = Path(left).name.partition("_")[0]
        names = {"Left-Fundus": Path(left).name, "Right-Fundus": Path(right).name}
        rows.append({"ID": person, "Patient Age": 50, "Patient Sex": "Male", **names, **dict.fromkeys(columns, "1")})
        for path in (left, right):
            touch(root / "ODIR-5K/ODIR-5K" / path)
    with (root / "full_df.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[::2])


def write_lumiere(root: Path, shown: list[list[str]]) -> None:
    """Registered volumes of every visit, so thin that they are quickly written; a mask in one slice."""
    visits = {tuple(path[:-4].split("/")[n] for n in (1, 3)) for paths in shown for path in paths}
    labels = np.zeros((2, 218, 2), np.uint8)  # MNI's 1 mm grid has 218 coronal slices
    labels[:, 90] = 1
    values = np.arange(labels.size, dtype=np.int16).reshape(labels.shape)
    for patient, week in sorted(visits):
        folder = root / "Imaging" / patient / week.replace("week_", "week-")
        write_volume(folder / MASK, labels)
        write_volume(folder / ATLAS / "skull_strip/ct1_skull_strip.nii.gz", values)
    write_ratings(root, [("Patient-001", "week-000-1", "Pre-Op", "")])


@pytest.mark.parametrize("source", ["ms_cxr_t", "odir", "lumiere"])
def test_every_image_that_the_real_files_name_is_found(release_files: Path, tmp_path: Path, source: str) -> None:
    """Also those that no table of the owner names."""
    shown = list_named(release_files, source)
    paths = {path for question in shown for path in question}
    assert len(paths) > 1000
    {"ms_cxr_t": write_ms_cxr_t, "odir": write_odir, "lumiere": write_lumiere}[source](tmp_path, shown)
    adapter = load_part(source, "adapter", ReleaseAdapter)
    contents = adapter.read_contents(tmp_path)
    assert not paths <= {p.release_path for p in contents.pictures}, "the adapter's own choice leaves some out"
    adapter.add_released_pictures(tmp_path, contents, paths)
    released = ReleasedPictures.from_contents(contents, paths)
    assert released.pictures.keys() == paths
    for path, picture in released.pictures.items():
        assert (tmp_path / picture.file).is_file()
        assert records.origin_from_path(path) == (source, f"{source}/{picture.patient}")
    assert len({p.key for p in released.pictures.values()}) == len(paths)


def name_images(folder: Path, source: str, paths: Collection[str]) -> list[Path]:
    """qa tables of the release that name images, one a question; and one of another source."""
    for split in ("train", "benchmark"):
        rows = [
            question_row(
                split=split, ability="temporal", set="temporal", task="made", text=f"{path}?", answer="yes", source=of,
                generator="released/0", image_ids=[f"release/{path}"],
            )
            for of, path in ([(source, p) for p in sorted(paths)] if split == "train" else [("other", "other.png")])
        ]  # fmt: skip
        table_io.write_table(folder / f"{split}.parquet", "qa", rows)
    return [folder / "train.parquet", folder / "benchmark.parquet"]


def build_released(root: Path, out: Path, source: str, paths: Collection[str], **cfg: object) -> dict[str, dict[str, str]]:
    """Rows of the released_images table by path, of images built as a released run builds them."""
    table_io.write_table(out / "index.parquet", "files", files.index_files(root))
    outputs = [
        p for name in ("images", "findings", "rejected", "left-out", "released") for p in (f"--{name}", out / f"{name}.parquet")
    ]
    done = made.run_program(
        "build_images.py", "--source", source, "--root", root, "--raw", out / "index.parquet", *outputs,
        "--named", *name_images(out, source, paths), "--cfg", config_file({"size": 32, **cfg}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = table_io.read_table(out / "released.parquet", "released_images").to_pylist()
    images = table_io.read_frame(out / "images.parquet", "images")
    assert {r["image_id"] for r in rows} - {""} == set(images.image_id)
    assert all(bool(r["image_id"]) != bool(r["reason"]) and bool(r["image_id"]) == bool(r["patient_id"]) for r in rows)
    return {row["path"]: row for row in rows}


def draw(source: str, root: Path, patients: int) -> Path:
    load_part(source, "phantom", Phantom).write_cohort(root, patients=patients, seed=7)
    return root


def test_images_that_the_tables_leave_out_are_found_by_their_path(tmp_path: Path) -> None:
    """Of EMBED other views too; and only what the release names is read."""
    root = draw("embed", tmp_path / "embed", 4)
    metadata = pd.read_csv(next(root.glob("tables/EMBED_OpenData_metadata_reduced*.csv")))
    chosen = {p.release_path for p in load_part("embed", "adapter", Adapter).read_contents(root).pictures}
    in_release = metadata.anon_dicom_path.str.extract(r"(cohort_.*)\.dcm")[0] + ".png"
    others = sorted(path for path in set(in_release) - chosen if next(root.rglob(f"{path[:-4]}.dcm"), None))
    assert others, "the phantoms have views that are not chosen"
    wanted = [*sorted(chosen)[:3], *others[:2], "cohort_1/9/9/9/9.png"]
    rows = build_released(root, tmp_path, "embed", wanted)
    assert [bool(rows[path]["image_id"]) for path in wanted] == [True] * 5 + [False]
    assert rows[wanted[-1]]["reason"] == "its file is not in this copy of the source"
    assert all(rows[path]["patient_id"] == f"embed/{path.split('/')[1]}" for path in wanted[:5])


def test_figures_are_found_by_id_and_by_their_path_in_the_tar(tmp_path: Path) -> None:
    root = draw("pmc", tmp_path / "pmc", 4)
    urls = [json.loads(line) for line in (root / "llava_med_image_urls.jsonl").read_text().splitlines()]
    wanted = [f"images/{urls[0]['pair_id']}.jpg", f"{urls[1]['pair_id']}.jpg", urls[2]["image_file_path"], "12345678_F9.jpg"]
    rows = build_released(root, tmp_path, "pmc", wanted)
    assert [bool(rows[path]["image_id"]) for path in wanted] == [True, True, True, False]
    assert rows[wanted[2]]["patient_id"] == f"pmc/{urls[2]['image_file_path'].split('/')[0]}"


def test_why_an_image_can_not_be_shown_is_said(tmp_path: Path) -> None:
    """Absent, damaged, of a patient beyond the limit; the pixels of another file are that file's image."""
    root = draw("vqa_rad", tmp_path / "vqa_rad", 8)
    folder = root / "VQA_RAD Image Folder"
    names = sorted(p.name for p in folder.iterdir())
    (folder / names[0]).unlink()
    (folder / names[2]).write_bytes((folder / names[1]).read_bytes())
    (folder / names[3]).write_bytes(b"none")
    rows = build_released(root, tmp_path, "vqa_rad", [*names, "synpic1.jpg"], max_rejected=0.5)
    assert rows[names[0]]["reason"] == "its file is not in this copy of the source"
    assert rows[names[1]]["image_id"] == rows[names[2]]["image_id"] != ""
    assert rows[names[2]]["patient_id"] == f"vqa_rad/{names[2][:-4]}"
    assert rows[names[3]]["reason"] not in ("", rows[names[0]]["reason"])
    assert rows["synpic1.jpg"]["reason"] == "the source's tables do not name it, and its file is not there"
    (tmp_path / "few").mkdir()
    limited = build_released(root, tmp_path / "few", "vqa_rad", names[4:], limit=2)
    reasons = [row["reason"] for row in limited.values()]
    assert reasons.count("") == 2 and reasons.count("its patient is beyond the limit of the config") == 2


def test_a_limit_takes_patients_whom_the_release_names(tmp_path: Path) -> None:
    """Also where their images lie elsewhere than the adapter would say without a look."""
    root = draw("odir", tmp_path / "odir", 8)
    elsewhere = root / "ODIR-5K_Training_Dataset"
    elsewhere.mkdir()
    moved = sorted((root / "Training Images").iterdir())[6:]
    for path in moved:
        path.rename(elsewhere / path.name)
    named = [f"Training Images/{path.name}" for path in moved]
    rows = build_released(root, tmp_path, "odir", named, limit=2)
    reasons = [rows[path]["reason"] for path in named]
    assert reasons.count("") == 4 and set(reasons) == {"", "its patient is beyond the limit of the config"}


def test_a_source_that_the_release_does_not_show_is_empty(tmp_path: Path) -> None:
    root = draw("odir", tmp_path / "odir", 4)
    assert build_released(root, tmp_path, "odir", []) == {}
    assert table_io.read_table(tmp_path / "images.parquet", "images").num_rows == 0


def test_slices_that_lumiere_lacks_are_said(tmp_path: Path) -> None:
    root = tmp_path / "lumiere"
    write_lumiere(root, [["ct1_LUMIERE_images_tumor1200px_256x256/Patient-001/slice_90/week_000-1.png"]])
    folder = "LUMIERE_images_tumor1200px_256x256"
    wanted = {
        f"ct1_{folder}/Patient-001/slice_90/week_000-1.png": "",
        f"ct1_{folder}/Patient-001/slice_218/week_000-1.png": "named by the release: the visit's grid has 218 coronal slices",
        f"t2_{folder}/Patient-001/slice_90/week_000-1.png": "named by the release: a sequence that this visit lacks",
        f"ct1_{folder}/Patient-009/slice_90/week_003.png": f"named by the release: there is no {MASK} of Patient-009, week-003",
    }
    rows = build_released(root, tmp_path, "lumiere", wanted)
    assert {path: row["reason"] for path, row in rows.items()} == wanted

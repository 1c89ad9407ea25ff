"""Released questions upon images, and what becomes of those whose images are not there."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import release_made as made

from config_files import config_file
from medmim.benchmarks.released import records
from medmim.benchmarks.released.convert import convert_records
from medmim.benchmarks.released.records import Slot
from medmim.questions.row import Row, hash_question
from medmim.tables import table_io

SLOTS = {split: Slot(split, "temporal", "temporal") for split in ("train", "benchmark")}


def write_questions(folder: Path, **records_by_split: Sequence[dict[str, object]]) -> list[Path]:
    """qa tables of made records, and the import's rejected table beside them."""
    for split, slot in SLOTS.items():
        made_records = records_by_split.get(split)
        files = [records.read_records(made.write_records(folder / f"{split}.json", made_records))] if made_records else []
        converted = convert_records((slot, "0" * 64, file) for file in files)
        table_io.write_table(folder / f"{split}.qa.parquet", "qa", converted.rows[split])
    table_io.write_table(folder / "unusable.parquet", "rejected", [{"stage": "import_release", "item": "x", "reason": "y"}])
    return [folder / f"{split}.qa.parquet" for split in SLOTS]


def make_image(path: str, image_id: str = "", reason: str = "", source: str = "ms_cxr_t") -> dict[str, str]:
    """A row of the released_images table."""
    patient = f"{source}/{path.split('/')[1].removeprefix('p')}" if image_id else ""
    return {"path": path, "source": source, "image_id": image_id, "patient_id": patient, "reason": reason}


def select(
    folder: Path, images: Sequence[dict[str, str]], share: float = 0.0, **records_by_split: Sequence[dict]
) -> made.ProgramResult:
    """Run select_released on made tables."""
    tables = write_questions(folder, **records_by_split)
    table_io.write_table(folder / "images.parquet", "released_images", images)
    outputs = [part for name in (*SLOTS, "rejected") for part in (f"--{name}", folder / f"out/{name}.parquet")]
    cfg = config_file({"sources": ["ms_cxr_t"], "max_missing_images": share})
    inputs = ["--qa", *tables, "--unusable", folder / "unusable.parquet", "--images", folder / "images.parquet"]
    return made.run_program("select_released.py", *inputs, *outputs, "--cfg", cfg)


def read(folder: Path, name: str) -> list[Row]:
    rows: list[Row] = table_io.read_table(folder / f"out/{name}.parquet", "rejected" if name == "rejected" else "qa").to_pylist()
    return rows


def test_questions_are_put_upon_the_images_that_their_paths_mean(tmp_path: Path) -> None:
    """By content: a path whose pixels another file has too means that file's image."""
    paths = [path for patient in (1, 2) for path in made.make_chest_paths(patient, 1, 2)]
    images = [make_image(path, image_id) for path, image_id in zip(paths, ("a", "b", "c", "a"), strict=True)]
    done = select(tmp_path, images, train=[made.make_record(1)], benchmark=[made.make_record(2)])
    assert done.returncode == 0, done.stderr
    assert "1 train, 1 benchmark questions; of 2 released 0 lack an image, 0 are of other sources, 0 repeats" in done.stderr
    (train,), (benchmark,) = read(tmp_path, "train"), read(tmp_path, "benchmark")
    assert (train["image_ids"], benchmark["image_ids"]) == (["a", "b"], ["c", "a"])
    assert (train["patient_ids"], benchmark["patient_ids"]) == (["ms_cxr_t/1"], ["ms_cxr_t/2"])
    assert train["qa_id"] == hash_question(train["question"], train["options"], train["answer"], ["a", "b"])
    assert read(tmp_path, "rejected") == [{"stage": "import_release", "item": "x", "reason": "y"}]


def test_what_can_not_be_asked_is_listed_by_reason(tmp_path: Path) -> None:
    odir = made.make_record(9, images=["Training Images/1_left.jpg", "Training Images/1_right.jpg"])
    twin, lacking = made.make_record(3), made.make_record(2)
    images = [make_image(path, path[-5]) for patient in (1, 3) for path in made.make_chest_paths(patient, 1, 2)]
    first, second = made.make_chest_paths(2, 1, 2)
    images += [make_image(first, reason="its file is not in this copy of the source"), make_image(second, reason="cut off")]
    done = select(tmp_path, images, 0.4, benchmark=[made.make_record(1), lacking, twin, odir])
    assert done.returncode == 0, done.stderr
    assert "0 train, 1 benchmark questions; of 4 released 1 lack an image, 1 are of other sources, 1 repeats" in done.stderr
    kept = read(tmp_path, "benchmark")
    unusable, missing, other, repeat = read(tmp_path, "rejected")
    assert len(kept) == 1 and unusable["stage"] == "import_release"
    assert missing["reason"] == f"its file is not in this copy of the source (image '{first}'); cut off (image '{second}')"
    assert other["reason"] == "source odir is not in the config"
    assert repeat["reason"].startswith("repeats question ") and repeat["item"].startswith("benchmark question ")
    assert {r["stage"] for r in (missing, other, repeat)} == {"select_released"}


@pytest.mark.parametrize(("share", "stops"), [(0.0, True), (0.24, True), (0.25, False), (1.0, False)])
def test_too_many_questions_without_images_stop_the_run(tmp_path: Path, share: float, stops: bool) -> None:
    """The share is of the questions of the config's sources: those of others are left out on purpose."""
    images = [make_image(path, path) for patient in (1, 2, 3) for path in made.make_chest_paths(patient, 1, 2)]
    images += [make_image(path, reason="its file is not in this copy") for path in made.make_chest_paths(4, 1, 2)]
    odir = [made.make_record(n, images=[f"Training Images/{n}_left.jpg", f"Training Images/{n}_right.jpg"]) for n in range(9)]
    done = select(tmp_path, images, share, benchmark=[*(made.make_record(n) for n in (1, 2, 3, 4)), *odir])
    assert done.returncode == stops, done.stderr
    if stops:
        assert (
            f"1 of 4 released questions name images that the sources don't have, more than the share {share:g} that"
            in done.stderr
        )
        assert "  1 × its file is not in this copy (image 'p10/p4/s1/image-1.png'): benchmark question" in done.stderr
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["rejected.failed.csv"]


def test_a_release_of_other_sources_alone_stops(tmp_path: Path) -> None:
    odir = made.make_record(9, images=["Training Images/1_left.jpg", "Training Images/1_right.jpg"])
    done = select(tmp_path, [], 1.0, benchmark=[odir])
    assert done.returncode == 1 and "no benchmark question of the release can be asked" in done.stderr
    assert "1 × source odir is not in the config" in done.stderr

"""Copies of pictures: found by how they look, and kept out of training, the clean scores and the audit's good words.

The pictures are real ones that packages carry: CT, MR, ultrasound and scintigraphy of pydicom, the MNI152 brain of nilearn.
"""

import io
import json
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import release_made as made
from PIL import Image, ImageEnhance
from pydicom.data import get_testdata_file
from scipy.ndimage import gaussian_filter, map_coordinates

from medmim.benchmarks.quality.faults import NEAR_COPY, audit_files
from medmim.questions import near_copies
from medmim.questions.copies import CopyIndex, SourcePair, count_source_pairs
from medmim.questions.near_copies import find_near_copies
from medmim.questions.row import question_row
from medmim.scoring.leaderboard import flag_clean_questions
from medmim.sources.readers import raster
from medmim.sources.rendering import RenderedImage, render_image
from medmim.tables import table_io
from medmim.tables.images import write_images
from medmim.tables.thumbnails import compute_thumbnail, stack_thumbnails

DICOM_FILES = ("693_J2KI", "J2K_pixelrep_mismatch", "examples_overlay", "JPEG2000", "examples_rgb_color", "examples_palette")
SLICES = range(40, 150, 12)


def scale_grey(values: np.ndarray) -> Image.Image:
    low, high = np.percentile(values, [0.5, 99.5])
    return Image.fromarray((np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8))


@cache
def load_pictures() -> dict[str, Image.Image]:
    """Grey pictures of different subjects or, of the brain, slices 12 mm apart, which look alike."""
    pictures = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd in the test files, on purpose
        for name in DICOM_FILES:
            values = pydicom.dcmread(str(get_testdata_file(f"{name}.dcm"))).pixel_array.astype(float)
            pictures[name] = scale_grey(values.mean(2) if values.ndim == 3 else values)
    brain_file = package_files("nilearn.datasets.data") / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    brain = np.asarray(nibabel.load(str(brain_file)).dataobj)  # type: ignore[attr-defined]
    return pictures | {f"brain {z}": scale_grey(brain[:, :, z].T[::-1]) for z in SLICES}


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height)))


def encode_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def rescale(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)))


def mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": mirror,
    "JPEG 50": lambda i: encode_jpeg(i, 50),
    "JPEG 90": lambda i: encode_jpeg(i, 90),
    "half": lambda i: rescale(i, 0.5),
    "double": lambda i: rescale(i, 2),
    "another shape": lambda i: i.resize((200, 200)),
    "darker": lambda i: ImageEnhance.Brightness(i).enhance(0.7),
    "more contrast": lambda i: ImageEnhance.Contrast(i).enhance(1.3),
    "cropped": lambda i: crop(i, 0.05, 0.05, 0.05, 0.05),
    "cropped at one side": lambda i: crop(i, 0.05, 0, 0, 0),
    "cropped at a corner": lambda i: crop(i, 0, 0.033, 0.047, 0),
    "all of it": lambda i: encode_jpeg(
        rescale(ImageEnhance.Contrast(mirror(crop(i, 0.03, 0, 0.01, 0.05))).enhance(1.1), 0.7), 70
    ),
}


def make_thumbnails(pictures: list[Image.Image]) -> np.ndarray:
    return stack_thumbnails([compute_thumbnail(np.asarray(p)) for p in pictures])


def find_pairs(queries: list[Image.Image], pictures: list[Image.Image]) -> list[tuple[int, int]]:
    """Of pictures that are all of different patients."""
    groups = np.arange(len(queries)), np.arange(len(pictures)) + len(queries)
    found = find_near_copies(make_thumbnails(queries), make_thumbnails(pictures), *groups)
    assert all(near_copies.MIN_CORRELATION <= copy.correlation <= 1.0001 for copy in found)
    return [(copy.query, copy.picture) for copy in found]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_picture_is_found_and_no_other(change: Callable[[Image.Image], Image.Image]) -> None:
    pictures = list(load_pictures().values())
    changed = [change(p) for p in pictures]
    expected = [(n, n) for n in range(len(pictures))]
    assert find_pairs(pictures, changed) == expected
    assert find_pairs(changed, pictures) == expected


def warp(image: Image.Image, seed: int) -> Image.Image:
    """The picture drawn out by up to 8 % of its size here and there, as another person's anatomy is."""
    rng, (height, width) = np.random.default_rng(seed), np.asarray(image).shape
    shifts = [gaussian_filter(rng.standard_normal((height, width)), 0.08 * min(height, width)) for _ in range(2)]
    moved = [
        0.08 * min(height, width) * s / np.abs(s).max() + axis for s, axis in zip(shifts, np.mgrid[:height, :width], strict=True)
    ]
    return Image.fromarray(map_coordinates(np.asarray(image), moved, order=1, mode="nearest"))


def test_other_anatomy_is_no_copy() -> None:
    pictures = list(load_pictures().values())
    assert find_pairs(pictures, [warp(p, n) for n, p in enumerate(pictures)]) == []


def test_pictures_of_one_patient_are_not_compared() -> None:
    thumbnails = make_thumbnails(list(load_pictures().values()))
    groups = np.zeros(len(thumbnails), np.int64)
    assert find_near_copies(thumbnails, thumbnails, groups, groups) == []
    assert find_near_copies(thumbnails[:0], thumbnails, groups[:0], groups) == []


def test_blank_pictures_are_no_copies() -> None:
    blank = [Image.fromarray(np.full((90, 80), grey, np.uint8)) for grey in (0, 128, 255)]
    assert find_pairs(blank, blank) == []


def test_blocks_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = list(load_pictures().values())
    copies = [CHANGES["cropped"](p) for p in pictures] + pictures[:3]
    expected = find_pairs(pictures, copies)
    order = np.random.default_rng(0).permutation(len(copies))
    monkeypatch.setattr(near_copies, "QUERY_BLOCK", 3)
    monkeypatch.setattr(near_copies, "PICTURE_BLOCK", 5)
    shuffled = find_pairs(pictures, [copies[n] for n in order])
    assert sorted((query, int(order[picture])) for query, picture in shuffled) == expected


def render(image: Image.Image, kind: str = "PNG") -> RenderedImage:
    """As the adapters do from the file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, quality=85) if kind == "JPEG" else image.save(file, kind)
    rendered = render_image(file.getvalue(), raster.read_pixels, 400)
    assert isinstance(rendered, RenderedImage)
    return rendered


def write_pictures(path: Path, source: str, pictures: dict[str, RenderedImage]) -> Path:
    """An images table: each picture of a patient of its own, its name in the release too."""
    rows = [
        dict(image_id=p.image_id, source=source, patient_id=f"{source}/{name}", study_id=f"{source}/{name}", day=None)
        | dict(view="", laterality="", modality="CT", width=p.width, height=p.height, bytes=p.png, thumbnail=p.thumbnail)
        | dict(release_path=f"{name}.png", origin_file=f"{name}.png", origin_sha256=p.sha256)
        for name, p in pictures.items()
    ]
    write_images(path, rows)
    return path


def make_question(split: str, set_: str, source: str, *images: str, patients: list[str]) -> dict[str, object]:
    return question_row(
        split=split, ability="coreference", set=set_, task="made", text=f"Which of {images}?", options=["A side", "Another"],
        answer="A side", image_ids=images, patient_ids=patients, source=source, generator="made/1",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Figures of one source, and of another that shows three of them: one as it is, one mirrored and cropped as JPEG."""
    folder = tmp_path_factory.mktemp("copies")
    pictures = {name.replace(" ", "_"): picture for name, picture in load_pictures().items()}
    names = list(pictures)
    figures = {name: render(pictures[name]) for name in names[:4]}
    changed = mirror(crop(pictures[names[1]], 0.04, 0.02, 0, 0.05))
    radiology = {"same": render(pictures[names[0]]), "changed": render(changed, "JPEG"), "own": render(pictures[names[5]])}
    tables = {
        "pmc": write_pictures(folder / "pmc.images.parquet", "pmc", figures),
        "vqa_rad": write_pictures(folder / "vqa_rad.images.parquet", "vqa_rad", radiology),
    }
    train = [make_question("train", "coreference", "pmc", p.image_id, patients=[f"pmc/{name}"]) for name, p in figures.items()]
    benchmark = [
        make_question("benchmark", "rad", "vqa_rad", p.image_id, radiology["own"].image_id, patients=[f"vqa_rad/{name}"])
        for name, p in radiology.items()
    ]
    for source, questions in (("pmc", train), ("vqa_rad", benchmark)):
        tables[f"{source}_qa"] = folder / f"{source}.parquet"
        table_io.write_table(tables[f"{source}_qa"], "qa", questions)
    tables["copies"] = folder / "copies.parquet"
    done = made.run_program(
        "find_copies.py", "--qa", tables["pmc_qa"], tables["vqa_rad_qa"], "--images", tables["pmc"], tables["vqa_rad"],
        "--copies", tables["copies"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tables


def read_images(path: Path) -> Iterator[str]:
    yield from pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()


def test_the_table_lists_exact_and_near_copies(run: dict[str, Path]) -> None:
    rows = {row["relation"]: row for row in table_io.read_table(run["copies"], "copies").to_pylist()}
    assert len(rows) == len(table_io.read_table(run["copies"], "copies")) == 2
    figures, radiology = list(read_images(run["pmc"])), list(read_images(run["vqa_rad"]))
    assert (rows["exact"]["image"], rows["exact"]["training_image"]) == (radiology[0], figures[0])
    assert (rows["near"]["image"], rows["near"]["training_image"]) == (radiology[1], figures[1])
    assert near_copies.MIN_CORRELATION <= rows["near"]["correlation"] < 1 == rows["exact"]["correlation"]
    assert count_source_pairs(run["copies"]) == [SourcePair("vqa_rad", "pmc", exact=1, near=1)]


def test_training_loses_what_shows_a_copy(run: dict[str, Path], tmp_path: Path) -> None:
    cfg = tmp_path / "cfg.json"
    cfg.write_text(json.dumps({"seed": 1, "train": {"coreference": 9}, "benchmark": {"rad": 9}, "pretrain": 0}))
    splits = [x for s in ("train", "benchmark", "pretrain", "rejected") for x in (f"--{s}", tmp_path / f"{s}.parquet")]
    argv = ["--qa", run["pmc_qa"], run["vqa_rad_qa"], "--cfg", cfg, *splits]
    figures, radiology = list(read_images(run["pmc"])), list(read_images(run["vqa_rad"]))

    done = made.run_program("merge_qa.py", *argv, "--copies", run["copies"])
    assert done.returncode == 0, done.stderr
    kept = {i for ids in table_io.read_table(tmp_path / "train.parquet", "qa")["image_ids"].to_pylist() for i in ids}
    assert kept == {*figures[2:]}
    reasons = table_io.read_table(tmp_path / "rejected.parquet", "rejected")["reason"].to_pylist()
    assert sorted(reasons) == sorted(
        [
            f"image {figures[0]} is in the benchmark",
            f"image {figures[1]} is a near copy of {radiology[1]}, which is in the benchmark",
        ]
    )
    made.run_program("merge_qa.py", *argv)
    assert table_io.read_table(tmp_path / "train.parquet", "qa").num_rows == 3  # by their ids only


def test_clean_questions_show_no_copy(run: dict[str, Path]) -> None:
    benchmark, train = (table_io.read_table(run[name], "qa") for name in ("vqa_rad_qa", "pmc_qa"))
    assert flag_clean_questions(benchmark, train).tolist() == [False, True, True]
    assert flag_clean_questions(benchmark, train, CopyIndex.from_table(run["copies"])).tolist() == [False, False, True]
    figures = list(read_images(run["pmc"]))
    others = train.take([n for n, ids in enumerate(train["image_ids"].to_pylist()) if not {*ids} & {*figures[:2]}])
    assert len(others) == 2
    assert flag_clean_questions(benchmark, others, CopyIndex.from_table(run["copies"])).all()


def test_the_audit_tells_copies(run: dict[str, Path], tmp_path: Path) -> None:
    argv = ["--train", run["pmc_qa"], "--benchmark", run["vqa_rad_qa"], "--json", tmp_path / "audit.json"]
    done = made.run_program("audit_release.py", *argv, "--html", tmp_path / "audit.html", "--copies", run["copies"])
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "audit.json").read_text())["rad"]
    assert (figures["shares_image_with_train"], figures[NEAR_COPY]) == (1, 1)
    page = (tmp_path / "audit.html").read_text()
    assert "<td>vqa_rad</td><td>pmc</td>" in page
    assert "A near copy in training" in page
    made.run_program("audit_release.py", *argv)
    assert NEAR_COPY not in json.loads((tmp_path / "audit.json").read_text())["rad"]  # not looked for


def test_released_questions_are_compared_by_content(run: dict[str, Path], tmp_path: Path) -> None:
    train = made.write_records(tmp_path / "train.json", [made.make_record(1, images=["693_J2KI.png", "brain_40.png"])])
    records = [made.make_record(2, images=["same.png", "own.png"]), made.make_record(3, images=["changed.png", "own.png"])]
    benchmark = made.write_records(tmp_path / "benchmark.json", records)
    tables = {"train": [["693_J2KI", "J2K_pixelrep_mismatch"]], "benchmark": [["same", "own"], ["changed", "own"]]}
    for split, questions in tables.items():
        rows = [
            make_question(split, "comparison", "made", *(f"release/{n}.png" for n in names), patients=names)
            for names in questions
        ]
        table_io.write_table(tmp_path / f"{split}.parquet", "qa", rows)
    qa = [tmp_path / f"{split}.parquet" for split in tables]
    copies = tmp_path / "copies.parquet"
    done = made.run_program("find_copies.py", "--qa", *qa, "--images", run["pmc"], run["vqa_rad"], "--copies", copies)
    assert done.returncode == 0, done.stderr
    pairs = {(r["image"], r["training_image"], r["relation"]) for r in table_io.read_table(copies, "copies").to_pylist()}
    assert pairs == {
        ("release/same.png", "release/693_J2KI.png", "exact"),
        ("release/changed.png", "release/J2K_pixelrep_mismatch.png", "near"),
    }
    _, audits = audit_files([train], [benchmark], CopyIndex.from_table(copies))
    figures = audits["benchmark.json"].compute_figures()
    assert (figures["shares_image_with_train"], figures[NEAR_COPY]) == (1, 0)  # the files' training lacks the other
    _, audits = audit_files([train], [benchmark])
    assert audits["benchmark.json"].compute_figures()["shares_image_with_train"] == 0
    assert not flag_clean_questions(
        table_io.read_table(qa[1], "qa"), table_io.read_table(qa[0], "qa"), CopyIndex.from_table(copies)
    ).any()

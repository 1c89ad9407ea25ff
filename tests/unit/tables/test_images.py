"""Images: ids by content, lossless PNG, the images table and its store."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medmim.common.errors import TableError
from medmim.tables import images
from medmim.tables.images import ImageStore, decode_png, downscale_pixels, encode_png
from medmim.tables.thumbnails import compute_thumbnail


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def row(seed: int, *shape: int, released: str = "") -> dict[str, object]:
    image_id, png = encode_png(pixels(seed, *shape))
    names = ("source", "patient_id", "study_id", "view", "laterality", "modality", "origin_file", "origin_sha256")
    return dict.fromkeys(names, "x") | {
        "image_id": image_id,
        "day": None if seed % 2 else seed,
        "width": shape[1],
        "height": shape[0],
        "bytes": png,
        "thumbnail": compute_thumbnail(pixels(seed, *shape)),
        "release_path": released,
        "origin_file": f"{seed}.png",
    }


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, list[dict[str, object]]]:
    rows = [row(s, 9, 7, released=f"cohort/{s}.png") if s % 3 else row(s, 9, 7, 3) for s in range(50)]
    images.write_images(tmp_path / "a.parquet", rows)
    return tmp_path / "a.parquet", rows


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (8, 5, 3)])
def test_png_is_lossless(shape: tuple[int, ...]) -> None:
    before = pixels(0, *shape)
    image = decode_png(encode_png(before)[1])
    assert image.mode == ("L" if len(shape) == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(image), before)


def test_id_is_of_the_picture_not_of_its_storage() -> None:
    grey = pixels(1, 4, 6)
    assert encode_png(np.stack([grey] * 3, axis=2)) == encode_png(grey)
    assert encode_png(np.asfortranarray(grey)) == encode_png(grey)
    assert encode_png(grey.reshape(6, 4))[0] != encode_png(grey)[0]
    assert encode_png(grey.reshape(2, 4, 3))[0] != encode_png(grey.reshape(4, 6))[0]
    changed = grey.copy()
    changed[3, 5] ^= 1
    assert encode_png(changed)[0] != encode_png(grey)[0]


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_encode_refuses_what_is_no_picture(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        encode_png(bad)


def test_downscale_bounds_the_longest_side_and_never_enlarges() -> None:
    tall = pixels(2, 300, 100, 3)
    assert downscale_pixels(tall, 60).shape == (60, 20, 3)
    assert downscale_pixels(tall, 300) is tall
    assert downscale_pixels(pixels(2, 3, 900), 30).shape == (1, 30)
    np.testing.assert_array_equal(downscale_pixels(np.full((90, 90), 77, np.uint8), 10), 77)


def test_store_finds_images_by_id_and_by_release_path(table: tuple[Path, list[dict[str, object]]]) -> None:
    path, rows = table
    store = ImageStore([path])
    assert len(store) == len(rows)
    for number in np.random.default_rng(0).permutation(len(rows)):
        expected = rows[number]
        by_id = str(expected["image_id"])
        assert store.read_row(by_id) == {k: v for k, v in expected.items() if k not in ("bytes", "thumbnail")}
        assert store.read_png(by_id) == expected["bytes"]
        if expected["release_path"]:
            reference = f"release/{expected['release_path']}"
            assert reference in store
            assert store.read_row(reference)["image_id"] == by_id
            np.testing.assert_array_equal(np.asarray(store.read_image(reference)), np.asarray(decode_png(expected["bytes"])))  # type: ignore[arg-type]
    two = [str(rows[9]["image_id"]), str(rows[3]["image_id"])]
    assert [encode_png(np.asarray(i))[0] for i in store.read_images(two)] == two


def test_store_tells_which_tables_answer_for_images(table: tuple[Path, list[dict[str, object]]], tmp_path: Path) -> None:
    path, rows = table
    other, same = tmp_path / "b.parquet", tmp_path / "c.parquet"
    images.write_images(other, [row(99, 5, 5)])
    images.write_images(same, rows[:2])
    store = ImageStore([path, other, same])
    mine, theirs = str(rows[0]["image_id"]), str(row(99, 5, 5)["image_id"])
    assert store.find_tables([mine, f"release/{rows[1]['release_path']}"]) == [path]
    assert store.find_tables([theirs, mine, theirs]) == [path, other]
    assert store.find_tables([]) == []
    with pytest.raises(LookupError, match="nowhere"):
        store.find_tables(["nowhere"])


def test_absent_image_is_named_with_its_tables(table: tuple[Path, list[dict[str, object]]]) -> None:
    store = ImageStore([table[0]])
    assert "release/cohort/0.png" not in store
    assert "" not in store
    assert "release/" not in store
    for call in (store.read_row, store.read_png, store.read_image):
        with pytest.raises(LookupError, match=r"release/nowhere\.png.*a\.parquet"):
            call("release/nowhere.png")


def test_store_pickles_and_reads_in_other_processes(table: tuple[Path, list[dict[str, object]]]) -> None:
    path, rows = table
    store = ImageStore([path])
    ids = [str(r["image_id"]) for r in rows]
    assert len(pickle.dumps(store)) < 1000
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(store.read_png, ids)) == [r["bytes"] for r in rows]


def test_frame_has_every_row_without_the_bytes(table: tuple[Path, list[dict[str, object]]], tmp_path: Path) -> None:
    images.write_images(tmp_path / "b.parquet", [row(99, 5, 5)])
    frame = ImageStore([table[0], tmp_path / "b.parquet"]).to_frame()
    assert len(frame) == 51
    assert "bytes" not in frame
    assert frame.origin_file.iloc[-1] == "99.png"


def test_table_is_written_in_small_row_groups_and_the_same_bytes(
    table: tuple[Path, list[dict[str, object]]], tmp_path: Path
) -> None:
    path, rows = table
    metadata = pq.read_metadata(path)
    assert max(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)) <= images.ROW_GROUP_SIZE
    assert images.write_images(tmp_path / "again.parquet", iter(rows)) == 50
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield from (row(s, 4, 4) for s in range(40))
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        images.write_images(tmp_path / "x.parquet", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_no_images_can_be_read(tmp_path: Path) -> None:
    images.write_images(tmp_path / "x.parquet", [])
    assert len(ImageStore([tmp_path / "x.parquet"])) == 0


def test_a_damaged_image_is_the_tables_damage(tmp_path: Path) -> None:
    rows = [row(s, 9, 7) for s in range(3)]
    rows[1]["bytes"] = bytes(rows[1]["bytes"])[:-30]  # type: ignore[call-overload]
    images.write_images(tmp_path / "a.parquet", rows)
    store = ImageStore([tmp_path / "a.parquet"])
    for read in (
        lambda: store.read_image(str(rows[1]["image_id"])),
        lambda: store.read_images([str(r["image_id"]) for r in rows]),
    ):
        with pytest.raises(TableError, match=rf"a\.parquet: image {rows[1]['image_id']} is damaged .*delete the file"):
            read()

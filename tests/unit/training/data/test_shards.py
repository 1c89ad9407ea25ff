"""Shards: the tables, what is turned away, the dataset over them, and the programs that make them."""

import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoConfig, AutoTokenizer

from medmim.common.files import hash_file, index_files
from medmim.models.families.base import Layout
from medmim.models.families.registry import FAMILIES, get_family
from medmim.tables import data_policy, images, table_io
from medmim.tables.data_policy import DataPolicy
from medmim.training.data import pixel_table
from medmim.training.data.build_shards import build_samples
from medmim.training.data.dataset import ShardDataset
from small_models import make_image_rows, make_questions, run_program, write_model, write_tables

TINY = {"image_size": 56, "vision_width": 96, "vision_layers": 3, "language_width": 128, "language_layers": 3, "heads": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder with qa.parquet, images.parquet and one folder with tokenizer and config a family."""
    folder = tmp_path_factory.mktemp("world")
    write_tables(folder)
    for family in FAMILIES:
        write_model(folder / family, family, weights=False)
    return folder


def build(monkeypatch, world, out, family, threads=1, **cfg):
    cfg = {"family": family, "system": "", "max_length": 512, "max_rejected": 0.0} | cfg
    places = {name: out / f"{name}.parquet" for name in ("samples", "pixels", "rejected")}
    qa, store = world / "qa.parquet", [world / "images.parquet"]
    model = world / family / "files.parquet"
    run_program(monkeypatch, "build_shards.py", cfg=cfg, model=model, qa=qa, images=store, threads=threads, **places)
    return places


@pytest.mark.parametrize("family", FAMILIES)
def test_build_shards(monkeypatch, world, tmp_path, family):
    places = build(monkeypatch, world, tmp_path / "a", family, system="Be brief.")
    layout = Layout.from_folder(get_family(family), world / family)
    store = images.ImageStore([world / "images.parquet"])
    asked = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    rows = table_io.read_table(places["samples"], "samples").to_pylist()
    assert [r["qa_id"] for r in rows] == [q["qa_id"] for q in asked]
    for row, question in zip(rows, asked, strict=True):
        assert row["image_ids"] == question["image_ids"]
        assert row["input_ids"].count(layout.image_token_id) == len(question["image_ids"])
        ids, labels = layout.expand_images(row["input_ids"], row["labels"])
        assert row["length"] == len(ids) == len(labels) == layout.count_tokens(row["input_ids"])
        reply = layout.tokenizer.decode(labels[labels >= 0], skip_special_tokens=True).strip()
        gold = question["answer"]
        assert reply == ("ABC"[question["answer_index"]] + f": {gold}" if question["options"] else gold)
        assert "Be brief." in layout.tokenizer.decode(row["input_ids"])
    found = table_io.read_table(places["pixels"], "pixels").to_pylist()
    held = table_io.read_table(world / "images.parquet", "images", ["image_id"]).column(0).to_pylist()
    used = {i for q in asked for i in q["image_ids"]}
    assert [r["image_id"] for r in found] == [i for i in held if i in used]  # in the order of the images tables
    for row in found:
        assert row["pixels"] == layout.preprocess_image(store.read_image(row["image_id"])).tobytes()
        assert (row["height"], row["width"]) == (56, 56)
    again = build(monkeypatch, world, tmp_path / "b", family, threads=2, system="Be brief.")
    assert {n: hash_file(p) for n, p in places.items()} == {n: hash_file(p) for n, p in again.items()}
    record = json.loads((tmp_path / "a" / "samples.parquet.prov.json").read_text())
    other = next(f for f in FAMILIES if f != family).replace("-", "_")
    assert f"medmim.models.families.{family.replace('-', '_')}" in record["code"]["modules"]
    assert f"medmim.models.families.{other}" not in record["code"]["modules"]


def test_shards_are_under_the_policies_of_what_they_hold(monkeypatch, world, tmp_path):
    """Of the questions, and of the images tables whose images are shown; not of the model and of images that none shows."""
    table = pq.read_table(world / "qa.parquet")
    asked = tmp_path / "qa.parquet"
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"licence": b"Q"}), asked)
    rows = table_io.read_table(world / "images.parquet", "images").to_pylist()
    used = {i for ids in table["image_ids"].to_pylist() for i in ids}
    unused = make_image_rows(9)[5:]
    assert len(rows) == 5 and not used & {str(row["image_id"]) for row in unused}
    for name, held, policy in (
        ("a", rows[:2], DataPolicy(frozenset({"A"}))),
        ("b", rows[2:], DataPolicy(frozenset({"B"}), frozenset({"embed"}))),
        ("c", unused, DataPolicy(frozenset({"C"}), frozenset({"odir"}))),
        ("d", rows, DataPolicy(frozenset({"D"}))),  # the same images again: the first table answers for them
    ):
        data_policy.set_current_policy(policy)
        images.write_images(tmp_path / f"{name}.parquet", held)
    data_policy.set_current_policy(DataPolicy())
    places = {name: tmp_path / f"out/{name}.parquet" for name in ("samples", "pixels", "rejected")}
    cfg = {"family": "mantis", "system": "", "max_length": 512, "max_rejected": 0.0}
    tables = [tmp_path / f"{name}.parquet" for name in "abcd"]
    model = world / "mantis/files.parquet"
    run_program(monkeypatch, "build_shards.py", cfg=cfg, model=model, qa=asked, images=tables, **places)
    shown = DataPolicy(frozenset("QAB"), frozenset({"embed"}))
    assert DataPolicy.from_table(places["samples"]) == DataPolicy.from_table(places["pixels"]) == shown
    assert DataPolicy.from_table(places["rejected"]) == DataPolicy(frozenset("QABCD"), frozenset({"embed", "odir"}))


def test_what_can_not_be_trained_on_is_listed_with_its_reason(world):
    layout = Layout.from_folder(get_family("mantis"), world / "mantis")
    store = images.ImageStore([world / "images.parquet"])
    good = table_io.read_table(world / "qa.parquet", "qa").to_pylist()[2]
    kept, rejected = build_samples(
        [
            good,
            good | {"image_ids": good["image_ids"][:1]},
            good | {"image_ids": [good["image_ids"][0], "f" * 64]},
            good | {"question": good["question"] + " long" * 600},
            good | {"answer_index": None},
            good | {"options": [], "answer": ""},
            good | {"image_ids": [good["image_ids"][0], "release/last.png"]},
        ],
        layout,
        store,
        system="",
        max_length=512,
    )
    assert [k["image_ids"][1] for k in kept] == [good["image_ids"][1], "release/last.png"]
    reasons = [r["reason"] for r in rejected]
    assert [r["item"].split(",")[0] for r in rejected] == [f"qa row {n}" for n in (2, 3, 4, 5, 6)]
    assert reasons[0] == "2 placeholders for 1 images"
    assert reasons[1] == f"no image {'f' * 64} in the images tables (1 of 2 absent)"
    assert "more than max_length 512" in reasons[2]
    assert "is not option None" in reasons[3]
    assert "is empty" in reasons[4]


def test_length_counts_expanded_images(world):
    layout = Layout.from_folder(get_family("llava-med"), world / "llava-med")
    store = images.ImageStore([world / "images.parquet"])
    question = table_io.read_table(world / "qa.parquet", "qa").to_pylist()[3]
    kept, _ = build_samples([question], layout, store, system="", max_length=512)
    length = kept[0]["length"]
    assert length == len(kept[0]["input_ids"]) + 3 * 15
    assert not build_samples([question], layout, store, system="", max_length=length)[1]
    assert build_samples([question], layout, store, system="", max_length=length - 1)[1]


def test_too_many_rejected_stops_with_a_message_and_nothing_written(monkeypatch, world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        build(monkeypatch, world, tmp_path / "out", "mantis", max_length=60)
    message = capsys.readouterr().err
    assert "qa.parquet" in message and "more than the share max_rejected 0.0" in message and "max_length 60" in message
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["rejected.failed.csv"]
    places = build(monkeypatch, world, tmp_path / "out", "mantis", max_length=80, max_rejected=0.9)
    kept, rejected = (table_io.read_table(places[n], n).num_rows for n in ("samples", "rejected"))
    assert kept and rejected and kept + rejected == len(make_questions(["a", "b"]))


def test_dataset_gives_each_sample_at_any_time(monkeypatch, world, tmp_path):
    places = build(monkeypatch, world, tmp_path, "mantis")
    data = ShardDataset(places["samples"], places["pixels"])
    rows = table_io.read_table(places["samples"], "samples").to_pylist()
    held = {r["image_id"]: r["pixels"] for r in table_io.read_table(places["pixels"], "pixels").to_pylist()}
    assert len(data) == len(rows) and data.lengths.tolist() == [r["length"] for r in rows]
    for dataset in (data, pickle.loads(pickle.dumps(data))):
        for i in reversed(range(len(rows))):
            sample = dataset[i]
            assert sample.input_ids.tolist() == rows[i]["input_ids"] and sample.labels.tolist() == rows[i]["labels"]
            assert [p.tobytes() for p in sample.pixels] == [held[j] for j in rows[i]["image_ids"]]
            assert all(p.shape == (56, 56, 3) and p.dtype == np.uint8 for p in sample.pixels)
    assert np.array_equal(data[-1].input_ids, data[len(data) - 1].input_ids)
    assert data.get_image(rows[1]["image_ids"][0]).tobytes() == held[rows[1]["image_ids"][0]]
    with pytest.raises(IndexError):
        data[len(data)]
    with pytest.raises(ValueError, match="read-only"):
        data[1].pixels[0][0, 0, 0] = 1


def pixel_rows(count):
    """Rows of a pixels table; every image is another, and they differ in size, from a few bytes to thousands."""
    shapes = [(2 + n % 300, 3, 3) for n in range(count)]
    arrays = [np.full(shape, n % 256, np.uint8) for n, shape in enumerate(shapes)]
    return [{"image_id": str(n), "height": a.shape[0], "width": a.shape[1], "pixels": a.tobytes()} for n, a in enumerate(arrays)]


@pytest.mark.parametrize(("group_bytes", "count", "groups"), [(1 << 25, 5000, 2), (6000, 300, 69), (1, 20, 20)])
def test_an_image_is_found_at_its_place_in_any_row_group(tmp_path, monkeypatch, group_bytes, count, groups):
    monkeypatch.setattr(pixel_table, "GROUP_BYTES", group_bytes)
    rows, path = pixel_rows(count), tmp_path / "pixels.parquet"
    assert pixel_table.write_pixels(path, iter(rows)) == len(rows)
    assert pq.read_metadata(path).num_row_groups >= groups
    assert table_io.read_table(path, "pixels").to_pylist() == rows  # as any other reader has it
    held = pixel_table.PixelTable(path)
    assert all(held[n].tobytes() == r["pixels"] and held[n].shape == (r["height"], 3, 3) for n, r in enumerate(rows))
    assert held.row_of_image[str(count - 1)] == count - 1


def test_pixels_of_no_image(tmp_path):
    pixel_table.write_pixels(tmp_path / "pixels.parquet", [])
    assert pixel_table.PixelTable(tmp_path / "pixels.parquet").row_of_image == {}


def test_pixels_that_lie_otherwise_are_refused(tmp_path):
    """Compressed, or by another's hand: never other pixels than the table's."""
    rows, path = pixel_rows(9), tmp_path / "pixels.parquet"
    table_io.write_table(path, "pixels", rows)
    with pytest.raises(table_io.TableError, match=r"pixels\.parquet: row group 0 is not laid out as build_shards does it"):
        pixel_table.PixelTable(path)
    pq.write_table(
        table_io.build_table("pixels", rows), path, compression="none", use_dictionary=False, data_page_size=1, write_batch_size=4
    )
    with pytest.raises(table_io.TableError, match="build the shards again"):
        pixel_table.PixelTable(path)
    pixel_table.write_pixels(path, [rows[0] | {"height": 3}, rows[1] | {"height": 2}, *rows[2:]])
    with pytest.raises(table_io.TableError, match="row 0 is not 27 bytes long, as its height and width say"):
        pixel_table.PixelTable(path)[0]


def test_dataset_refuses_tables_that_do_not_belong_together(monkeypatch, world, tmp_path):
    places = build(monkeypatch, world, tmp_path, "mantis")
    pixel_table.write_pixels(tmp_path / "fewer.parquet", table_io.read_table(places["pixels"], "pixels").to_pylist()[1:])
    with pytest.raises(table_io.TableError, match=r"fewer\.parquet: no image"):
        ShardDataset(places["samples"], tmp_path / "fewer.parquet")
    rows = table_io.read_table(places["samples"], "samples").to_pylist()
    rows[0]["labels"] = rows[0]["labels"][1:]
    table_io.write_table(tmp_path / "uneven.parquet", "samples", rows)
    with pytest.raises(table_io.TableError, match="labels are not as long"):
        ShardDataset(tmp_path / "uneven.parquet", places["pixels"])


@pytest.mark.parametrize("family", FAMILIES)
def test_make_tokenizer(monkeypatch, world, tmp_path, family):
    hashes = []
    for name in ("a", "b"):
        place = tmp_path / name / "files.parquet"
        cfg = {"family": family, "tiny": TINY}
        run_program(monkeypatch, "make_tokenizer.py", cfg=cfg, qa=[world / "qa.parquet"], tokenizer=place)
        hashes.append([(r["path"], r["sha256"]) for r in index_files(place.parent)])
    assert hashes[0] == hashes[1]
    tokenizer, config = AutoTokenizer.from_pretrained(tmp_path / "a"), AutoConfig.from_pretrained(tmp_path / "a")
    assert config.model_type == "llava" and config.text_config.vocab_size == len(tokenizer)
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id  # as the real tokenizers do
    layout = Layout.from_folder(get_family(family), tmp_path / "a")
    ids, _ = layout.encode_sample("Which image shows the larger lesion?", "The lesion is larger.")
    assert len(ids) < 40  # whole words, not letters


def test_make_tokenizer_refuses_bad_sizes(monkeypatch, world, tmp_path, capsys):
    cfg = {"family": "mantis", "tiny": TINY | {"image_size": 57}}
    with pytest.raises(SystemExit):
        place = tmp_path / "t" / "files.parquet"
        run_program(monkeypatch, "make_tokenizer.py", cfg=cfg, qa=[world / "qa.parquet"], tokenizer=place)
    assert "image_size 57 is not a multiple of 14" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()

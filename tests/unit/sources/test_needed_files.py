"""Of a folder of the user's only those files are touched that a run needs, and only their changes make anything anew."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import lumiere_made
import owners_made
from config_files import config_file
from local_sources import LocalSource
from medmim.common.files import hash_file
from medmim.config.source_plugins import SOURCES
from medmim.provenance import code_digest
from medmim.provenance.audit import audit_run
from medmim.provenance.cache import result_arguments
from medmim.provenance.staleness import PlannedJob, decide_jobs, digest_watched
from medmim.sources.base import Picture, Rejection, SourceContents, TableBuilder
from medmim.sources.needed_files import NeededFiles
from medmim.tables import table_io
from traced_programs import run_traced

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "workflow/scripts/index_source.py"
TABLE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
PATIENTS = 6
DECOYS = 1000


def write_mimic_copy(root: Path) -> list[str]:
    """A copy of MIMIC-CXR-JPG with MS-CXR-T's table, and the paths of the images that the table names."""
    rows, paths = [], []
    for patient in range(PATIENTS):
        subject = f"1{patient:07d}"
        stems = [f"p{subject[:2]}/p{subject}/s5{patient:06d}{visit}/{patient:08x}-{visit:08x}" for visit in range(2)]
        row = {"dicom_id": stems[1], "previous_dicom_id": stems[0], "subject_id": subject}
        row |= {"study_id": f"5{patient:06d}1", "previous_study_id": f"5{patient:06d}0"}
        rows.append(row | {f"{f}_progression": "" for f in ("consolidation", "pleural_effusion", "pneumonia", "pneumothorax")})
        rows[-1] |= {"edema_progression": "stable", "edema_label_quality": "one_expert"}
        for visit, stem in enumerate(stems):
            path = root / f"files/{stem}.jpg"
            path.parent.mkdir(parents=True)
            Image.linear_gradient("L").resize((40 + patient, 50 + visit)).save(path)
            paths.append(path.relative_to(root).as_posix())
    pd.DataFrame(rows).to_csv(root / TABLE, index=False)
    for number in range(DECOYS):  # of the same patients, in the same studies, and of others
        study = Path(paths[number % len(paths)]).parent if number % 2 else Path(f"files/p19/p19{number:06d}/s59{number:06d}")
        (root / study).mkdir(parents=True, exist_ok=True)
        (root / study / f"decoy{number}.jpg").write_bytes(b"not an image")
    return paths


@dataclass
class Index:
    """A run that indexes one folder, from its own folder."""

    folder: Path
    root: Path
    needed: list[str]
    cfg: dict[str, Any]

    @property
    def arguments(self) -> list[str]:
        places = {"hashes": "r/checkpoints/h.jsonl", "index": "r/sources/x.parquet", "watched": "r/sources/x.watched.parquet"}
        options = {"source": "ms_cxr_t", "root": str(self.root), **places, "threads": "3", "cfg": config_file(self.cfg)}
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def run(self, kill_at: int = 0) -> dict[str, Any]:
        """Run the program; what it touched below the folder."""
        return run_traced(PROGRAM, self.root, *self.arguments, report=self.folder / "report.json", kill_at=kill_at)

    def read_hashes(self) -> dict[str, str]:
        rows = table_io.read_table(self.folder / "r/sources/x.parquet", "files").to_pylist()
        return {row["path"]: row["sha256"] for row in rows}

    def find_reasons(self) -> list[str]:
        """Why `snakemake -n` would run the job; none where it would not."""
        code = code_digest.code_digest(PROGRAM.name, "medmim.sources.ms_cxr_t.adapter")
        outputs = [Path("r/sources/x.parquet"), Path("r/sources/x.watched.parquet")]
        command = result_arguments(self.arguments)
        planned = PlannedJob("index", PROGRAM.name, command, self.cfg, code, [], outputs)
        return list(decide_jobs([planned], Path("r")).to_run.values())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("mimic")
    return root, write_mimic_copy(root)


@pytest.fixture
def index(drawn: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """A folder to change, each file its own."""
    shutil.copytree(drawn[0], tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return Index(tmp_path, tmp_path / "data", drawn[1], {})


@pytest.fixture(scope="module")
def indexed(drawn: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("indexed")
    shutil.copytree(drawn[0], folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, Index(folder, folder / "data", drawn[1], {}).run()


def test_only_what_the_table_names_is_touched(drawn: tuple[Path, list[str]], indexed: tuple[Path, dict[str, Any]]) -> None:
    (root, paths), (folder, touched) = drawn, indexed
    needed = {*paths, TABLE}
    hashes = Index(folder, folder / "data", paths, {}).read_hashes()
    assert hashes == {path: sha256((root / path).read_bytes()).hexdigest() for path in needed}
    assert set(touched["open"]) == needed and set(touched["list"]) == {"."}
    opened, statted = Counter(touched["open"]), Counter(touched["stat"])
    assert {opened[path] for path in paths} == {1} and {statted[path] for path in paths} == {1}
    assert set(statted) <= {*needed, ".", "files"}


def test_a_plan_stats_the_same_and_nothing_else(index: Index, indexed: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(indexed[0])
    index.root = indexed[0] / "data"
    statted: list[str] = []
    stat = os.stat

    def note_stat(path: Any, *more: Any, **options: Any) -> os.stat_result:
        statted.append(os.path.relpath(path, index.root))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", note_stat)
    assert index.find_reasons() == []
    monkeypatch.undo()
    below = {path for path in statted if not path.startswith("..")}
    assert below - {"."} == {*index.needed, TABLE}


def test_a_limit_touches_its_patients_files_alone(index: Index) -> None:
    index.cfg = {"limit": 2}
    touched = index.run()
    hashes = index.read_hashes()
    patients = {path.split("/")[2] for path in hashes if path != TABLE}
    assert len(patients) == 2
    assert hashes.keys() == {TABLE, *(path for path in index.needed if path.split("/")[2] in patients)} == set(touched["open"])
    assert {path for path in touched["stat"] if path.endswith(".jpg")} < set(touched["open"]), "and no others are statted"


def test_a_killed_job_goes_on_where_it_was(index: Index, indexed: tuple[Path, Any]) -> None:
    whole = (indexed[0] / "r/sources/x.parquet").read_bytes()
    table_opens = Counter(indexed[1]["open"])[TABLE]
    index.run(kill_at=table_opens + 6)
    assert not (index.folder / "r/sources/x.parquet").exists()
    known = (index.folder / "r/checkpoints/h.jsonl").read_text().splitlines()
    assert 1 <= len(known) <= 6, "the table, and five images"
    opened = [path for path in index.run()["open"] if path != TABLE]
    assert len(opened) == len(index.needed) - sum(TABLE not in line for line in known)
    assert (index.folder / "r/sources/x.parquet").read_bytes() == whole
    changed = index.root / index.needed[3]
    changed.write_bytes(changed.read_bytes() + b"more")
    assert [path for path in index.run()["open"] if path != TABLE] == [index.needed[3]]
    assert index.read_hashes()[index.needed[3]] == sha256(changed.read_bytes()).hexdigest()


def test_a_change_of_what_is_needed_counts_and_no_other(index: Index) -> None:
    moved = index.root / index.needed[0]
    kept = moved.read_bytes()
    moved.unlink()
    assert index.needed[0] not in (index.run(), index.read_hashes())[1]
    assert index.find_reasons() == []

    decoy = next(index.root.rglob("decoy1.jpg"))
    decoy.write_bytes(b"another")
    (decoy.parent / "one more.jpg").write_bytes(b"")
    next(index.root.rglob("decoy2.jpg")).unlink()
    (index.root / "README").write_text("a file beside the table")
    assert index.find_reasons() == []

    reason = [f"a file in {index.root} has changed"]
    moved.write_bytes(kept)
    assert index.find_reasons() == reason, "a file that was absent has come"
    moved.unlink()
    assert index.find_reasons() == []
    other = index.root / index.needed[1]
    stat, content = other.stat(), other.read_bytes()
    other.write_bytes(bytes([*content[:-1], content[-1] ^ 1]))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert index.find_reasons() == reason, "a byte of one has changed, and its time was set back"
    index.run()
    assert index.find_reasons() == []
    other.rename(other.with_suffix(".gone"))
    assert index.find_reasons() == reason, "one has gone"
    index.run()
    assert index.find_reasons() == []
    shutil.copy(index.root / TABLE, index.root / TABLE.replace("v1.0.0", "v2.0.0"))
    assert index.find_reasons() == reason, "a second table fits the name that is looked for"


def test_the_audit_hashes_what_is_listed_and_tells_what_has_come(index: Index) -> None:
    def find_faults() -> set[tuple[str, str]]:
        faults = audit_run(Path("r"))["faults"]
        return {(f["kind"], f["path"]) for f in faults if "code" not in f["kind"]}

    absent, altered = index.needed[:2]
    (index.root / absent).rename(index.root / "kept")
    index.run()
    (index.root / "files/more.jpg").write_bytes(b"not an image")
    assert find_faults() == set()
    (index.root / "kept").rename(index.root / absent)
    (index.root / altered).write_bytes(b"other bytes")
    assert find_faults() == {("orphaned", f"data/{absent}"), ("altered", f"data/{altered}")}


def test_of_lumiere_only_masks_and_registered_volumes_of_the_limit_are_opened(tmp_path: Path) -> None:
    root = lumiere_made.write_folder(tmp_path / "LUMIERE")
    source = LocalSource("lumiere", root, tmp_path)
    source.build_tables(max_rejected=1)
    images, findings = (source.read_table(name) for name in ("images", "findings"))
    source.build_tables(max_rejected=1, limit=1)
    limited_images, limited_findings = (source.read_table(name) for name in ("images", "findings"))
    (patient,) = set(limited_images.patient_id)
    for whole, limited in ((images, limited_images), (findings, limited_findings)):
        expected = whole[whole.patient_id == patient].reset_index(drop=True)
        pd.testing.assert_frame_equal(limited, expected)

    arguments = ["--source", "lumiere", "--root", root, "--cfg", config_file({"limit": 1})]
    outputs = [word for name in ("hashes", "index", "watched") for word in (f"--{name}", tmp_path / f"own/{name}.parquet")]
    touched = run_traced(PROGRAM, root, *arguments, *outputs, report=tmp_path / "report.json")
    folder = f"Imaging/{patient.removeprefix('lumiere/')}/"
    assert {path for path in touched["open"] if not path.startswith(folder)} == {lumiere_made.RATINGS_FILE}
    assert all(path.endswith(("seg_mask.nii.gz", "_skull_strip.nii.gz")) for path in touched["open"] if path.startswith(folder))
    assert set(images[images.patient_id == patient].origin_file) < set(touched["open"])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return owners_made.draw_sources(tmp_path_factory.mktemp("owners"))


@pytest.mark.parametrize("source", SOURCES)
def test_of_every_source_what_is_indexed_suffices_and_what_is_watched_is_found_again(
    phantoms: Path, source: str, tmp_path: Path
) -> None:
    root = phantoms / source
    adapter = import_module(f"medmim.sources.{source}.adapter")
    needed = NeededFiles(adapter, root, [], None, lambda contents: contents)
    hashes = {
        str(r["path"]): str(r["sha256"]) for r in needed.iter_index_rows(lambda folder, path, _: hash_file(folder / path), 2)
    }
    contents = adapter.read_contents(root)
    builder = TableBuilder(source, root, contents, 16, index_hashes=hashes)
    assert len(list(builder.iter_image_rows())) == len(contents.pictures), "a file that no index lists would be refused"
    assert {fact.table for fact in contents.facts} <= hashes.keys()
    assert "phantom_truth.csv" not in hashes, "which no adapter reads"
    table_io.write_table(tmp_path / "watched.parquet", "watched", needed.recorder.list_rows())
    assert digest_watched(root, tmp_path / "watched.parquet") == needed.recorder.compute_digest()


def make_partial_contents() -> SourceContents:
    """Ten patients of three pictures each, of a source that most have in part."""
    pictures = [
        Picture(file=f"{patient}/{n}.dcm", read_pixels=lambda data: data, patient=f"{patient}", study="s", modality="m")
        for patient in range(10)
        for n in range(3)
    ]
    return SourceContents(pictures=pictures, rejected=[Rejection("row", "bad", patient="1")], is_often_partial=True)


@pytest.mark.parametrize("limit", [1, 3, 9, None])
def test_of_a_partial_copy_no_more_is_looked_at_than_the_limit_needs(limit: int | None) -> None:
    contents = make_partial_contents()
    present = {f"{patient}/{n}.dcm" for patient in (1, 4, 6, 9) for n in (0, 2)}
    asked: list[str] = []
    chosen = contents.choose_present(limit, lambda file: (asked.append(file), file in present)[1])
    expected = [
        p
        for p in SourceContents(pictures=[p for p in contents.pictures if p.file in present]).limit_patients(limit).pictures
        if p.file in present
    ]
    assert chosen.pictures == expected and len({p.patient for p in expected}) == min(limit or 4, 4)
    again = contents.choose_present(limit, {p.file for p in expected}.__contains__)
    assert again.pictures == expected and len(asked) == len(set(asked))
    if limit == 1:
        assert len({file.split("/")[0] for file in asked}) < 10, "those after the first that is there are not asked for"

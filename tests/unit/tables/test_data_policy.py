"""Rules of use go with the data, from a source's files to all that is made of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from config_files import config_file
from medmim.provenance import cache
from medmim.provenance.job import Job, build_parser
from medmim.sources import terms
from medmim.tables import data_policy, table_io
from medmim.tables.data_policy import DataPolicy

SCRIPTS = Path(__file__).parents[3] / "workflow/scripts"
MIMIC = terms.source_policy("ms_cxr_t", True)
RAD = terms.source_policy("vqa_rad", False)


def made(path: Path, held: DataPolicy, *read: Path) -> Path:
    """A table that a job made of others."""
    arguments = build_parser(None)
    arguments.add_argument("--read", type=Path, nargs="*")
    arguments.add_argument("--out", type=Path)
    with Job(arguments, inputs=["read"], outputs=["out"], argv=["--out", str(path), "--read", *map(str, read)]) as job:
        job.add_policy(held)
        table_io.write_table(job.out["out"], "files", [{"path": "a", "bytes": 1, "sha256": "0"}])
    return path


def run(program: str, cfg: dict[str, Any], *arguments: str | Path) -> None:
    call = [sys.executable, SCRIPTS / program, "--cfg", config_file(cfg), *arguments]
    subprocess.run(call, check=True, capture_output=True)


def test_a_table_is_under_the_rules_of_all_that_it_was_made_of(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a.parquet", MIMIC), made(tmp_path / "b.parquet", RAD)
    both = made(tmp_path / "c.parquet", DataPolicy(), first, second, tmp_path / "a.parquet.prov.json")
    assert DataPolicy.from_table(both) == MIMIC | RAD and (MIMIC | RAD).credentialed == {"ms_cxr_t"}
    assert pq.read_schema(both).metadata[b"licence"] == b"CC0 1.0; PhysioNet Credentialed Health Data License 1.5.0"
    record = json.loads((tmp_path / "c.parquet.prov.json").read_text())["policies"]["out"]
    assert record == {"licence": sorted(MIMIC.licences | RAD.licences), "credentialed": ["ms_cxr_t"]}
    assert DataPolicy.from_record(record) == MIMIC | RAD


def test_an_output_may_be_under_a_policy_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its metadata and the record, and as the cache restores it; what is written after it is under all inputs' again."""
    read = made(tmp_path / "a.parquet", MIMIC)
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    names = ("one", "two", "folder", "last")
    own = {"one": RAD, "two": RAD, "folder": MIMIC, "last": MIMIC}

    def make(folder: Path) -> bool:
        """Whether the job computed."""
        arguments = build_parser(None)
        arguments.add_argument("--read", type=Path, nargs="*")
        for name in names:
            arguments.add_argument(f"--{name}", type=Path)
        places = {name: folder / ("m/files.parquet" if name == "folder" else f"{name}.parquet") for name in names}
        argv = ["--read", str(read), *(word for name, place in places.items() for word in (f"--{name}", str(place)))]
        rows = [{"path": "a", "bytes": 1, "sha256": "0"}]
        try:
            with Job(arguments, inputs=["read"], outputs=names, argv=argv) as job:
                with job.apply_output_policy(RAD, "one", "two"):
                    for name in ("one", "two"):
                        table_io.write_table(job.out[name], "files", rows)
                (job.out["folder"] / "a").write_text("x")
                table_io.write_table(job.out["last"], "files", rows)
        except SystemExit:
            return False
        finally:
            for name, place in places.items():
                assert DataPolicy.from_table(place) == own[name], name
                record = json.loads(place.with_name(f"{place.name}.prov.json").read_text())["policies"]
                assert {option: DataPolicy.from_record(fields) for option, fields in record.items()} == own
        return True

    assert make(tmp_path / "first")
    assert not make(tmp_path / "second")
    assert data_policy.current_policy() == DataPolicy()


def test_rules_hold_for_one_job_only_and_change_no_rows(tmp_path: Path) -> None:
    made(tmp_path / "a.parquet", MIMIC)
    plain = made(tmp_path / "b.parquet", DataPolicy())
    assert data_policy.current_policy() == DataPolicy() and DataPolicy.from_table(plain) == DataPolicy()
    assert pq.read_schema(plain).metadata.keys() == {b"table"}
    assert table_io.read_table(plain, "files").equals(table_io.read_table(tmp_path / "a.parquet", "files"))


def test_the_users_folders_and_phantoms_are_marked_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("x")
    index, raw = tmp_path / "i.parquet", tmp_path / "raw/files.parquet"
    run("index_files.py", {"rules": MIMIC.to_record()}, "--root", tmp_path / "data", "--index", index)
    run("make_phantoms.py", {"patients": 1, "seed": 1}, "--source", "odir", "--raw", raw)
    assert (DataPolicy.from_table(index), DataPolicy.from_table(raw)) == (MIMIC, data_policy.SYNTHETIC_POLICY)

import copy
from pathlib import Path
from typing import Any

import pytest
from record_made import complete_record

from medmim.common.errors import RecordVersionError, SidecarError
from medmim.provenance import job_record

RECORD = complete_record(
    cfg={"größe": 1.5, "on": True, "none": None, "tab\x1f": "<\u2028>"},
    inputs={"read": [{"path": "a", "bytes": 1, "sha256": "0"}], "more": [{"path": "b", "bytes": 2, "sha256": "1"}]},
    outputs={"to": {"path": "c", "bytes": 3, "sha256": "2"}},
    folders=[{"index": "i", "path": "f", "tree": "3", "watched": ""}],
    code={"sha256": "4", "modules": {}, "packages": {}},
    restored={"at": "2026-01-01T00:00:00.000+00:00", "host": "vm"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    job_record.write_record(tmp_path / "c.prov.json", RECORD)
    return tmp_path / "c.prov.json"


def test_what_was_written_is_read(path: Path) -> None:
    record = job_record.read_record(path)
    assert record == RECORD | {"seal": record["seal"]}
    assert sorted(e["path"] for e in job_record.input_files(record)) == ["a", "b"]
    assert [e["path"] for e in job_record.output_files(record)] == ["c"]
    before = path.read_bytes()
    job_record.write_record(path, record)
    assert path.read_bytes() == before, "a record read and written again is the same"


def test_a_change_of_any_byte_shows(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bits in (1, 0x20, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
            with pytest.raises(SidecarError, match=path.name):
                job_record.read_record(path)


def test_a_byte_more_or_less_shows(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(len(whole) + 1):
        for changed in (
            whole[:at] + b" " + whole[at:],
            whole[:at] + b"\n" + whole[at:],
            whole[:at],
            whole[:at] + whole[at + 1 :],
        ):
            if changed != whole:
                path.write_bytes(changed)
                with pytest.raises(SidecarError):
                    job_record.read_record(path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '"seal"', "null", "{}", '{"seal": 1}', '{"seal": "x"}', '{"a": "\\ud800", "seal": "x"}', "[" * 100_000],
    ids=["empty", "list", "text", "null", "object", "number", "letters", "surrogate", "deep"],
)  # fmt: skip
def test_what_is_no_record_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(SidecarError, match=path.name):
        job_record.read_record(path)


FIELDS = [
    *((name,) for name in RECORD if name not in ("format_version", "restored")),
    *(("inputs", "read", 0, name) for name in ("path", "bytes", "sha256")),
    *(("outputs", "to", name) for name in ("path", "bytes", "sha256")),
    *(("folders", 0, name) for name in ("index", "path", "tree", "watched")),
    *(("code", name) for name in ("sha256", "modules", "packages")),
    *(("git", name) for name in ("commit", "clean")),
    *(("machine", "host"), ("restored", "at"), ("restored", "host")),
]


@pytest.mark.parametrize("place", FIELDS, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("wrong", ["gone", "of another type"])
def test_a_sealed_record_without_a_field_is_of_another_version(path: Path, place: tuple[str | int, ...], wrong: str) -> None:
    if wrong == "of another type" and place == ("cfg",):
        return  # which may be of any type
    record: Any = copy.deepcopy(RECORD)
    part = record
    for name in place[:-1]:
        part = part[name]
    if wrong == "gone":
        del part[place[-1]]
    else:
        part[place[-1]] = None
    job_record.write_record(path, record)
    with pytest.raises(RecordVersionError, match=rf"{path.name}: lacks .*{place[-1]}.*: run snakemake again"):
        job_record.read_record(path)


@pytest.mark.parametrize(
    ("version", "problem"),
    [(3, "was written in format version 3"), (0, "was written in format version 0"), (None, "before formats had versions")],
)
def test_another_format_version_is_told(path: Path, version: int | None, problem: str) -> None:
    job_record.write_record(path, RECORD | {"format_version": version})
    with pytest.raises(RecordVersionError, match=problem) as told:
        job_record.read_record(path)
    assert str(told.value) == f"{path}: {told.value.problem}: run snakemake again"
    assert told.value.problem.endswith("and this checkout reads version 2")


def test_an_absent_one_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        job_record.read_record(tmp_path / "x.prov.json")


def test_names(tmp_path: Path) -> None:
    assert job_record.sidecar_path(Path("a/b.parquet")) == Path("a/b.parquet.prov.json")
    assert job_record.subject_path(Path("a/b.parquet.prov.json")) == Path("a/b.parquet")
    for name in ("z.prov.json", "a/b.prov.json", "a/b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [*job_record.find_sidecars(tmp_path)] == [tmp_path / "a/b.prov.json", tmp_path / "z.prov.json"]

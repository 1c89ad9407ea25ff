from pathlib import Path

import pytest

from medmim.common.errors import SidecarError
from medmim.provenance import job_record

RECORD = {
    "program": "x.py",
    "cfg": {"größe": 1.5, "on": True, "none": None, "tab\x1f": "<\u2028>"},
    "inputs": {"read": [{"path": "a", "bytes": 1, "sha256": "0"}], "more": [{"path": "b", "bytes": 2, "sha256": "1"}]},
    "outputs": {"to": {"path": "c", "bytes": 3, "sha256": "2"}},
}


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

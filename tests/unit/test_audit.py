import json
import subprocess
import sys
from pathlib import Path

import pytest

from medmim.audit import audit

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two real jobs, the index of a user's folder and the index of that index's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / name).write_text(name)
    call = [sys.executable, str(SCRIPTS / "index_files.py")]
    subprocess.run([*call, "--root", "data", "--index", "r/sources/x.parquet"], check=True)
    (tmp_path / "data/config.json").write_text("{}")
    subprocess.run([*call, "--root", "data", "--index", "r/sources/x.parquet"], check=True)
    fetch = [
        sys.executable,
        str(SCRIPTS / "fetch_model.py"),
        "--cfg",
        json.dumps({"hub": None, "revision": None, "path": "data"}),
    ]
    subprocess.run([*fetch, "--model", "r/models/m/files.parquet"], check=True)
    return Path("r")


def faults(run: Path) -> set[tuple[str, str]]:
    return {(f["kind"], f["path"]) for f in audit(run)["faults"]}


def test_a_whole_run_passes(run: Path) -> None:
    assert audit(run) == {"artifacts": 2, "files": 6, "faults": []}


@pytest.mark.parametrize(
    ("path", "kind"),
    [("r/sources/x.parquet", "altered"), ("r/models/m/files.parquet", "altered"), ("data/a", "altered")],
)
def test_one_changed_byte_is_named(run: Path, path: str, kind: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)
    assert (kind, path) in faults(run)


def test_missing_orphaned_and_unmade(run: Path) -> None:
    Path("data/b").unlink()
    Path("r/models/m/extra").write_text("x")
    Path("r/stray.parquet").write_text("x")
    assert {("missing", "data/b"), ("orphaned", "r/stray.parquet"), ("orphaned", "r/models/m/extra")} <= faults(run)
    assert {"kind": "missing", "path": "r/no", "detail": "was not made: run the workflow first"} in audit(run, [Path("r/no")])[
        "faults"
    ]


def test_links_between_jobs(run: Path) -> None:
    sidecar = Path("r/models/m/files.parquet.prov.json")
    record = json.loads(sidecar.read_text())
    record["inputs"] = {"index": [{"path": "r/sources/x.parquet", "bytes": 1, "sha256": "0" * 64}]}
    sidecar.write_text(json.dumps(record))
    assert faults(run) == {("broken link", "r/sources/x.parquet")}
    record["inputs"] = {"index": [{"path": "r/unmade.parquet", "bytes": 1, "sha256": "0" * 64}]}
    sidecar.write_text(json.dumps(record))
    assert faults(run) == {("no provenance", "r/unmade.parquet")}


def test_a_damaged_sidecar_is_named(run: Path) -> None:
    Path("r/sources/x.parquet.prov.json").write_text("{")
    assert ("damaged sidecar", "r/sources/x.parquet.prov.json") in faults(run)


def test_the_program_fails_naming_the_file(run: Path) -> None:
    audit_program = [sys.executable, str(SCRIPTS / "audit.py"), "--results", "r", "--json", "r/audit.json"]
    assert subprocess.run(audit_program).returncode == 0
    Path("data/a").write_text("A")
    done = subprocess.run(audit_program, capture_output=True, text=True)
    assert done.returncode == 1 and "altered: data/a" in done.stderr
    assert "data/a" in {f["path"] for f in json.loads(Path("r/audit.json").read_text())["faults"]}

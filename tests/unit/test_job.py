import json
import subprocess
import sys
from pathlib import Path

import pytest

from medmim import files, tables

PROGRAM = """
from pathlib import Path
from medmim import tables
from medmim.job import Job, UserError, parser

arguments = parser("test")
arguments.add_argument("--read", type=Path, nargs="*", default=[])
arguments.add_argument("--table", type=Path)
arguments.add_argument("--folder", type=Path)
arguments.add_argument("--fail", default="")
with Job(arguments, inputs=["read"], outputs=["table", "folder"]) as job:
    if "folder" in job.out:
        (job.out["folder"] / "sub").mkdir()
        (job.out["folder"] / "sub/x").write_text("x")
    if "table" in job.out:
        tables.write(job.out["table"], "files", [{"path": "a", "bytes": 1, "sha256": job.cfg["x"]}])
    if job.args.fail == "user":
        raise UserError("row 3 of table.csv has no patient")
    if job.args.fail:
        raise RuntimeError("a defect")
    job.done("made")
"""


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def call(*args: str, ok: bool = True, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [sys.executable, "program.py", "--cfg", '{"x": "y"}', *args], cwd=tmp_path, capture_output=True, text=True, env=env
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stderr

    return call


def test_outputs_and_sidecars(run, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")
    said = run("--read", "in", "--table", "r/t.parquet", "--folder", "r/m/files.parquet", "--log", "r/l.log")
    assert "made" in said and "made" in (tmp_path / "r/l.log").read_text()
    assert sorted(p.relative_to(tmp_path / "r").as_posix() for p in (tmp_path / "r").rglob("*") if p.is_file()) == [
        "l.log", "m/files.parquet", "m/files.parquet.prov.json", "m/sub/x", "t.parquet", "t.parquet.prov.json",
    ]  # fmt: skip
    record = json.loads((tmp_path / "r/t.parquet.prov.json").read_text())
    assert record["inputs"]["read"] == [{"path": "in", "bytes": 2, "sha256": files.sha256(tmp_path / "in")}]
    assert record["outputs"]["table"]["sha256"] == files.sha256(tmp_path / "r/t.parquet")
    assert record["cfg"] == {"x": "y"}
    assert {"commit", "clean"} == record["git"].keys()
    assert tables.read(tmp_path / "r/m/files.parquet", "files").to_pylist()[0]["path"] == "sub/x"


@pytest.mark.parametrize(
    ("fail", "message"), [("user", "row 3 of table.csv has no patient"), ("defect", "RuntimeError: a defect")]
)
def test_a_failure_leaves_what_was_there(run, tmp_path: Path, fail: str, message: str) -> None:
    run("--table", "r/t.parquet", "--folder", "r/m/files.parquet")
    before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
    said = run("--table", "r/t.parquet", "--folder", "r/m/files.parquet", "--fail", fail, ok=False)
    assert message in said
    assert ("Traceback" in said) is (fail == "defect")
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before


def test_an_absent_input_is_named(run) -> None:
    assert "--read: gone.parquet does not exist" in run("--read", "gone.parquet", "--table", "t.parquet", ok=False)


def test_a_wrong_table_is_an_error_without_traceback(run) -> None:
    said = run("--cfg", '{"x": null}', "--table", "t.parquet", ok=False)
    assert "column sha256 of files is null in row 0" in said and "Traceback" not in said


def test_only_the_first_process_of_a_job_leaves_outputs(run, tmp_path: Path) -> None:
    import os

    run("--table", "r/t.parquet", "--folder", "r/m/files.parquet", env={**os.environ, "RANK": "1"})
    assert [p for p in (tmp_path / "r").rglob("*") if p.is_file()] == []


def test_no_credential_of_the_environment_is_recorded(run, tmp_path: Path) -> None:
    import os

    run("--table", "t.parquet", env={**os.environ, "HF_TOKEN": "hf_planted_secret", "AWS_SECRET_ACCESS_KEY": "planted_secret"})
    assert "planted_secret" not in (tmp_path / "t.parquet.prov.json").read_text()

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from config_files import config_file
from medmim.common import files
from medmim.common.errors import RunInterruptedError, UserError
from medmim.common.processes import JobProcesses
from medmim.provenance import cache, code_digest, engine_version, job_record, outputs
from medmim.provenance.cache import Cache
from medmim.provenance.job import Job, build_parser
from medmim.tables import table_io
from users import call_nameless

PROGRAM = """
from pathlib import Path
from medmim.common.errors import UserError
from medmim.common.processes import JobProcesses
from medmim.provenance.job import Job, build_parser
from medmim.provenance.outputs import Attempt
from medmim.tables import table_io as tables

arguments = build_parser("test")
arguments.add_argument("--read", type=Path, nargs="*", default=[])
arguments.add_argument("--table", type=Path)
arguments.add_argument("--folder", type=Path)
arguments.add_argument("--fail", default="")
with Job(arguments, inputs=["read"], outputs=["table", "folder"]) as job:
    if "folder" in job.out:
        (job.out["folder"] / "sub").mkdir()
        (job.out["folder"] / "sub/x").write_text("x")
    if "table" in job.out:
        tables.write_table(job.out["table"], "files", [{"path": "a", "bytes": 1, "sha256": job.cfg["x"]}])
    if job.args.fail == "superseded":
        Attempt({"table": job.args.table})
    elif job.args.fail == "user":
        raise UserError("row 3 of table.csv has no patient")
    elif job.args.fail:
        raise RuntimeError("a defect")
    job.set_summary("made")
"""


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def call(*args: str, ok: bool = True, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [sys.executable, "program.py", "--cfg", config_file({"x": "y"}), *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=env,
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stderr

    return call


def test_outputs_and_sidecars(run, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")
    said = run("--read", "in", "--table", "r/t.parquet", "--folder", "r/m/files.parquet", "--log", "r/l.log")
    assert "made" in said and "made" in (tmp_path / "r/l.log").read_text()
    assert sorted(p.relative_to(tmp_path / "r").as_posix() for p in (tmp_path / "r").rglob("*") if p.is_file()) == [
        "l.log", "l.runs.jsonl", "m/files.parquet", "m/files.parquet.prov.json", "m/sub/x", "t.parquet", "t.parquet.prov.json",
    ]  # fmt: skip
    record = json.loads((tmp_path / "r/t.parquet.prov.json").read_text())
    assert record["inputs"]["read"] == [{"path": "in", "bytes": 2, "sha256": files.hash_file(tmp_path / "in")}]
    assert record["outputs"]["table"]["sha256"] == files.hash_file(tmp_path / "r/t.parquet")
    assert record["cfg"] == {"x": "y"}
    assert {"commit", "clean"} == record["git"].keys()
    assert table_io.read_table(tmp_path / "r/m/files.parquet", "files").to_pylist()[0]["path"] == "sub/x"


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
    said = run("--cfg", config_file({"x": None}), "--table", "t.parquet", ok=False)
    assert "column sha256 of files is null in row 0" in said and "Traceback" not in said


def test_no_credential_of_the_environment_is_recorded(run, tmp_path: Path) -> None:
    run("--table", "t.parquet", env={**os.environ, "HF_TOKEN": "hf_planted_secret", "AWS_SECRET_ACCESS_KEY": "planted_secret"})
    assert "planted_secret" not in (tmp_path / "t.parquet.prov.json").read_text()


def test_a_pattern_stands_for_the_files_it_matches(run, tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c.txt"):
        (tmp_path / name).write_text(name)
    run("--read", "*.json", "c.txt", "--table", "t.parquet")
    record = job_record.read_record(tmp_path / "t.parquet.prov.json")
    assert [entry["path"] for entry in record["inputs"]["read"]] == ["a.json", "b.json", "c.txt"]
    assert "--read: x*.json does not exist" in run("--read", "x*.json", "--table", "t.parquet", ok=False)


def test_what_killed_processes_left_is_removed(run, tmp_path: Path) -> None:
    for name in (".t.parquet.partial-host-1", "..t.parquet.partial-host-1.partial-host-1", ".t.parquet.partial-claim"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".m.partial-another-host-2").mkdir()
    run("--table", "t.parquet", "--folder", "m/files.parquet")
    assert [p.name for p in tmp_path.iterdir() if ".partial-" in p.name] == []


def test_of_two_runs_of_one_job_the_later_one_counts(tmp_path: Path) -> None:
    """A node that SLURM lost computes on, while the job runs again elsewhere."""
    places = {"table": tmp_path / "t.parquet"}
    lost = outputs.Attempt(places)
    lost.temporary_paths["table"].write_text("of the lost node")
    later = outputs.Attempt(places)
    assert lost.is_superseded() and not later.is_superseded()
    with pytest.raises(UserError, match="another run of this job began"):
        lost.publish(lambda written, folders: {})
    lost.clean_up()
    later.temporary_paths["table"].write_text("of the later run")
    later.publish(lambda written, folders: {"outputs": written})
    later.clean_up()
    assert later.is_superseded(), "it is in place: nothing more is to be written"
    assert places["table"].read_text() == "of the later run"
    assert {p.name for p in tmp_path.iterdir()} == {"t.parquet", "t.parquet.prov.json"}


def test_a_run_that_lost_its_claim_says_so(run, tmp_path: Path) -> None:
    said = run("--table", "t.parquet", "--fail", "superseded", ok=False)
    assert "error: another run of this job began after this one" in said and "Traceback" not in said
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.needs("user_namespaces")
def test_what_may_not_be_read_or_written_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "secret").touch(0)
    (tmp_path / "r").mkdir(0o555)
    config = config_file({"x": "y"})
    for words, path in (
        (["--read", "secret", "--table", "t.parquet"], "secret"),
        (["--table", "r/t.parquet"], "r/.t.parquet.partial-claim"),
        (["--table", "t.parquet", "--log", "r/l.log"], f"{tmp_path}/r/l.log"),
    ):
        failed = call_nameless([sys.executable, "program.py", "--cfg", config, *words], tmp_path)
        remedy = "Permission denied. Let this user read or write it, or set another folder in the config"
        assert failed.stderr.splitlines()[-1] in [
            f"program.py: error: {p}: {remedy}" for p in (path, path.removeprefix(f"{tmp_path}/"))
        ]
        assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert not list(tmp_path.rglob("*.parquet*"))


# The cache


@dataclass
class Run:
    """Runs a job in this process, as `program` ("program.py": none of this project's)."""

    folder: Path
    cache: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(
        self,
        to: str = "r",
        read: tuple[str, ...] = ("in",),
        *more: str,
        cfg: dict[str, int] = {"n": 1},  # noqa: B006
        fail: bool | Exception = False,
        ends: int = 0,
        **options: Any,
    ) -> bool:
        """Whether the job's body ran; `ends`: the status it has to end with."""
        arguments = build_parser("")
        arguments.add_argument("--read", type=Path, nargs="*", default=[])
        arguments.add_argument("--kind", default="a")
        arguments.add_argument("--threads", type=int, default=1)
        arguments.add_argument("--root", type=Path)
        arguments.add_argument("--text", type=Path)
        arguments.add_argument("--model", type=Path)
        argv = ["--cfg", config_file(cfg), "--text", f"{to}/t.txt", "--model", f"{to}/m/files.parquet", "--read", *read, *more]
        ran = False
        try:
            with Job(arguments, inputs=["read"], outputs=["text", "model"], argv=argv, **options) as job:
                ran = True
                job.out["text"].write_text(f"{cfg} {job.args.kind} {[p.read_text() for p in job.args.read]}")
                (job.out["model"] / "sub").mkdir()
                (job.out["model"] / "sub/w").write_text("weights")
                if fail:
                    raise UserError("no") if fail is True else fail
                job.extra_fields["more"] = "told"
                job.set_summary("made")
        except SystemExit as end:
            assert end.code == ends
        self.said = self.capsys.readouterr().err
        return ran

    def files(self, below: str) -> dict[str, bytes]:
        return {
            p.relative_to(self.folder / below).as_posix(): p.read_bytes() for p in (self.folder / below).rglob("*") if p.is_file()
        }

    @property
    def entries(self) -> list[Path]:
        return Cache(self.cache, 1 << 30).list_entries()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program.py"])
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "in").write_text("in")
    root, handlers, level = logging.getLogger(), logging.root.handlers[:], logging.root.level
    yield Run(tmp_path, tmp_path / "cache", monkeypatch, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_second_identical_job_is_restored(job: Run) -> None:
    assert job("one") and "made" in job.said and "from the cache" not in job.said
    assert not job("two"), "the body ran"
    assert "made (from the cache)" in job.said
    one, two = job.files("one"), job.files("two")
    sidecars = [name for name in one if name.endswith(files.SIDECAR_SUFFIX)]
    assert sorted(one) == sorted(two) and len(sidecars) == 2
    assert {n: b for n, b in one.items() if n not in sidecars} == {n: b for n, b in two.items() if n not in sidecars}
    first, second = (job_record.read_record(job.folder / to / "t.txt.prov.json") for to in ("one", "two"))
    assert second == job_record.read_record(job.folder / "two/m/files.parquet.prov.json")
    assert "restored" not in first and second["restored"]["host"] == first["machine"]["host"]
    assert datetime.fromisoformat(second["restored"]["at"]) >= datetime.fromisoformat(first["end"])
    assert [o["path"] for o in job_record.output_files(second)] == ["two/m/files.parquet", "two/t.txt"]
    assert [o["sha256"] for o in job_record.output_files(second)] == [o["sha256"] for o in job_record.output_files(first)]
    (folder,) = second["folders"]
    tree = files.tree_digest(job.folder / "two/m")
    assert folder == {"path": "two/m", "index": "two/m/files.parquet", "tree": tree, "watched": ""}
    assert [second["command"][i] for i in (1, 3)] == ["two/t.txt", "two/m/files.parquet"]
    same = (
        "format_version",
        "engine_version",
        "python",
        "policies",
        "program",
        "cfg",
        "key",
        "inputs",
        "code",
        "git",
        "machine",
        "summary",
        "start",
        "end",
        "peak_memory_bytes",
        "more",
    )
    assert {k: first[k] for k in same} == {k: second[k] for k in same}


def test_restoring_over_the_same_files_leaves_nothing_behind(job: Run) -> None:
    job()
    before = job.files("r")
    (job.folder / "r/t.txt.prov.json").unlink()
    assert not job()
    assert sorted(job.files("r")) == sorted(before)


def test_a_restored_run_can_be_restored_from(job: Run) -> None:
    job("one")
    job("two")
    shutil.rmtree(job.folder / "one")
    assert not job("three")
    assert job_record.read_record(job.folder / "three/t.txt.prov.json")["outputs"]["text"]["path"] == "three/t.txt"


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job("two", cfg={"a": 1}),
        lambda job: job("two", ("in",), "--kind", "b"),
        lambda job: (job.folder / "in").write_text("In") and job("two"),
        lambda job: (job.folder / "in").rename(job.folder / "other") and job("two", ("other",)),
        lambda job: job("two", ("in", "in")),
        lambda job: job("two", ()),
        lambda job: job.monkeypatch.setattr(sys, "argv", ["another.py"]) or job("two"),
        lambda job: job.monkeypatch.setattr(engine_version, "ENGINE_VERSION", 99) or job("two"),
        lambda job: job.monkeypatch.setattr(engine_version, "PYTHON_VERSION", "3.99") or job("two"),
    ],
    ids=["cfg", "option", "content", "name", "twice", "none", "program", "engine", "Python"],
)
def test_what_changes_the_outputs_is_computed(job: Run, change: Callable[[Run], bool]) -> None:
    job("one")
    assert change(job)
    assert len(job.entries) == 2


def test_the_order_of_inputs_counts(job: Run) -> None:
    (job.folder / "in2").write_text("in2")
    job("one", ("in", "in2"))
    assert job("two", ("in2", "in"))


@pytest.mark.parametrize(
    ("read", "more"),
    [(("in",), ("--threads", "4")), (("in",), ("--log", "x.log")), (("sub/in",), ())],
    ids=["threads", "log", "folder"],
)
def test_what_changes_nothing_is_restored(job: Run, read: tuple[str, ...], more: tuple[str, ...]) -> None:
    (job.folder / "sub").mkdir()
    (job.folder / "sub/in").write_text("in")
    job("one")
    assert not job("two", read, *more)
    assert len(job.entries) == 1


def test_another_folder_among_the_options_is_restored(job: Run) -> None:
    assert job("one", ("in",), "--root", "here/data")
    assert not job("two", ("in",), "--root", "/elsewhere/data")


def test_a_job_that_is_not_cached_always_runs(job: Run) -> None:
    assert job("one", use_cache=False) and job.entries == []
    assert job("two")
    assert job("three", use_cache=False) and len(job.entries) == 1


def test_without_a_cache_every_job_runs(job: Run) -> None:
    job.monkeypatch.setenv(cache.FOLDER_VARIABLE, "")
    assert job("one") and job("two")
    assert not job.cache.exists()


def test_a_failure_is_not_kept(job: Run) -> None:
    assert job(fail=True, ends=1)
    assert not job.cache.exists()
    assert job.files("r") == {}
    assert job() and len(job.entries) == 1


class Second(JobProcesses):
    """The second process of a job, whose first one says what the cache has."""

    is_main = False

    def __init__(self, told: str) -> None:
        self.told = told

    def broadcast(self, what: str, decide: object) -> str:
        return self.told


def test_another_process_of_the_job_leaves_nothing_and_asks_the_first_what_the_cache_has(job: Run) -> None:
    assert job("one", processes=Second(""))
    assert not job.cache.exists() and job.files("one") == {}
    job("two")
    assert job("three", processes=Second(""))
    assert not job("three", processes=Second("yes"))
    assert job.files("three") == {}


def test_what_a_machine_cannot_do_is_said_before_anything_is_read(job: Run) -> None:
    def before(cfg: object) -> None:
        raise UserError(f"no room for {cfg}")

    assert not job(read=("gone",), preflight=before, ends=1)
    assert "error: no room for {'n': 1}" in job.said and list(job.folder.iterdir()) == [job.folder / "in"]


@pytest.mark.parametrize("again", [False, True])
def test_scratch_goes_once_the_outputs_are_there(job: Run, again: bool) -> None:
    root = ("in",), "--root", "left/over"
    if again:
        job("one", *root)
    (job.folder / "left/over/sub").mkdir(parents=True)
    if not again:
        assert job("two", *root, scratch=["root"], fail=True, ends=1)
        assert (job.folder / "left/over/sub").exists()
    assert job("two", *root, scratch=["root"]) is not again
    assert not (job.folder / "left/over").exists()


def test_work_that_was_told_to_stop_says_try_again(job: Run) -> None:
    assert job(fail=RunInterruptedError("told to stop"), ends=75)
    assert "program.py: told to stop" in job.said and "error" not in job.said and job.files("r") == {}


def test_a_damaged_entry_is_computed_again_and_mended(job: Run) -> None:
    job("one")
    (blob,) = (b for b in job.cache.glob("blobs/*/*") if b.read_bytes() == b"weights")
    blob.unlink()
    blob.write_bytes(b"Weights")
    assert job("two")
    assert blob.name in job.said
    assert (job.folder / "two/m/sub/w").read_text() == "weights"
    assert not job("three") and (job.folder / "three/m/sub/w").read_text() == "weights"


def test_an_entry_of_another_format_version_is_computed_again_and_left_to_others(job: Run) -> None:
    job("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "ENTRY_VERSION", 2)
        assert job("two")
        assert "was written in format version 1, and this checkout reads version 2; computing again" in job.said
        assert not job("three"), "written in its own version"
    assert job("four") and "was written in format version 2" in job.said


def test_what_is_changed_in_place_is_not_taken_for_another_run(job: Run) -> None:
    job("one")
    with (job.folder / "one/t.txt").open("r+") as f:
        f.write("X")
    assert job("two")
    assert (job.folder / "two/t.txt").read_text() == "{'n': 1} a ['in']"


def test_a_cache_that_fails_costs_no_result(job: Run) -> None:
    job.cache.write_text("a file where the folder should be")
    assert job()
    assert "cache: not kept" in job.said
    assert job_record.read_record(job.folder / "r/t.txt.prov.json")["summary"] == "made"


def test_a_full_cache_costs_no_result(job: Run) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.Cache, "put", full)
        assert job("one")
    assert "cache: not kept: [Errno 28] No space left on device" in job.said
    assert (job.folder / "one/t.txt.prov.json").exists()
    job("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.Cache, "restore_output", full)
        assert job("three")
    assert "No space left on device; computing again" in job.said
    assert sorted(job.files("three")) == sorted(job.files("two"))


def test_a_full_disk_is_told_in_a_line(job: Run) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_record, "write_record", full)
        assert job(ends=1)
    assert "program.py: error: no space left for r/t.txt, r/m/files.parquet" in job.said and "Traceback" not in job.said
    assert not job.cache.exists()
    assert job() and len(job.entries) == 1


def test_a_cache_that_may_only_be_read_is_read(job: Run) -> None:
    job("one")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "utime", refused)
        assert not job("two")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout with two more programs."""
    shutil.copytree(code_digest.WORKFLOW, tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(code_digest.LOCK_FILE, tmp_path)
    program = "from pathlib import Path\nfrom medmim.common import gpus\nfrom medmim.provenance.job import Job, build_parser\n"
    program += 'p = build_parser("")\np.add_argument("--to", type=Path)\n'
    whole = f'{program}with Job(p, outputs=["to"]) as job:\n    job.out["to"].write_text("x")\n    job.set_summary("made")\n'
    (tmp_path / "workflow/scripts/whole.py").write_text(whole)
    (tmp_path / "workflow/scripts/hidden.py").write_text(whole.replace("with", '__import__("medmim.config." + "base")\nwith'))
    return tmp_path


def call(checkout: Path, program: str, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, f"workflow/scripts/{program}", "--to", "to", *more]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": "workflow", "PYTHONDONTWRITEBYTECODE": "1", cache.FOLDER_VARIABLE: "cache"}
    return subprocess.run(argv, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def test_code_that_the_digest_does_not_cover_is_refused(checkout: Path) -> None:
    done = call(checkout, "hidden.py")
    assert done.returncode == 1
    assert "medmim.config.base" in done.stderr and "which its code digest does not cover" in done.stderr
    assert not (checkout / "to").exists() and not (checkout / "cache").exists()


@pytest.mark.needs("torch")
def test_another_code_is_computed(checkout: Path) -> None:
    assert "from the cache" not in call(checkout, "whole.py").stderr
    for name, text, restored in (
        ("medmim/common/gpus.py", "\n# a comment\n", True),
        ("medmim/config/training.py", "\nX = 1\n", True),
        ("medmim/provenance/job.py", "\nX = 1\n", True),
        ("medmim/common/slurm_client.py", "\nX = 1\n", True),
        ("medmim/common/gpus.py", "\nX = 1\n", False),
    ):
        with (checkout / "workflow" / name).open("a") as f:
            f.write(text)
        done = call(checkout, "whole.py")
        assert done.returncode == 0 and ("from the cache" in done.stderr) is restored, (name, done.stderr)
    assert "the code of whole.py changed after this run was planned" in call(checkout, "whole.py", "--code", "0" * 64).stderr

"""What the engine writes for a fixed small job is what engine_written.json holds, as long as ENGINE_VERSION is the same.

`python tests/unit/provenance/test_engine_version.py` writes that file anew, after ENGINE_VERSION was raised.
"""

import contextlib
import difflib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from config_files import config_file
from medmim.common import files
from medmim.provenance import cache, code_digest, engine_version, job_record
from medmim.provenance.cache import Cache
from medmim.provenance.job import Job, build_parser
from medmim.provenance.staleness import STAMPS_NAME, HashCache, PlannedJob, decide_jobs
from medmim.tables import table_io
from medmim.tables.data_policy import DataPolicy

GOLDEN = Path(__file__).with_name("engine_written.json")
ROOT = Path(__file__).parents[3]
COMMAND = f"python {Path(__file__).relative_to(ROOT)}"
VERSION_FILE = Path(engine_version.__file__).relative_to(ROOT)
PROGRAM = "index_files.py"
"""A program of this checkout whose name the job bears, for its code."""
VARYING_FIELDS = {
    *("at", "start", "end", "run", "seal", "tree"),
    *("commit", "clean", "host", "peak_memory_bytes", "cpu_seconds", "memory_mb"),
}
"""Fields that differ from run to run and from machine to machine: only their types are compared."""
VARYING_PARTS = {"code", "machine", "kept"}
"""Fields whose parts all differ so, or with the code of stages."""
CODE_EXAMPLE = {
    "scripts/a.py": '"""Doc."""\nfrom medmim.provenance.job import Job\nfrom medmim.leaf import f\nprint(f(), "printed")\n',
    "medmim/__init__.py": "",
    "medmim/leaf.py": "import numpy\n\n\ndef f(n: int = 1) -> str:\n    assert n, 'no n'\n    return f'{n} found'\n",
    "medmim/page.html": "<p>",
    "medmim/provenance/__init__.py": "",
    "medmim/provenance/job.py": "Job = 1\n",
    "requirements.lock": "numpy==1.0\n",
}


CFG = {"seed": 1, "tuning": {"gpus": 0}}


def make_canonical(value: Any) -> Any:
    """What was written, with the types of fields that vary in place of their values."""
    if isinstance(value, list):
        return [make_canonical(item) for item in value]
    if not isinstance(value, dict):
        return value
    types = {key: f"<{type(v).__name__}>" for key, v in value.items()}
    return {
        key: types[key]
        if key in VARYING_FIELDS
        else {part: f"<{type(v[part]).__name__}>" for part in v}
        if key in VARYING_PARTS and isinstance(v, dict)
        else make_canonical(v)
        for key, v in value.items()
    }


def read_table(path: Path) -> dict[str, Any]:
    """A table's own metadata and its rows: its bytes also depend on the version of pyarrow."""
    metadata = {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}
    return {"metadata": metadata, "rows": pq.read_table(path).to_pylist()}


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def list_files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def run_job(folder: str, *more: str) -> list[str]:
    """A job of two inputs and three outputs, one of them a folder and one under a policy of its own; its arguments."""
    arguments = build_parser(None)
    for name in ("--text", "--model", "--own", "--root"):
        arguments.add_argument(name, type=Path)
    arguments.add_argument("--read", type=Path, nargs="*")
    arguments.add_argument("--threads", type=int)
    arguments.add_argument("--kind")
    options = [f"--log={folder}/logs/rule.x.log", "--kind=b", "--threads", "2", "--root", "some/where"]
    outputs = ["--text", f"{folder}/t.txt", "--model", f"{folder}/m/files.parquet", "--own", f"{folder}/own.parquet"]
    argv = ["--cfg", config_file(CFG), *options, "--read", "a.parquet", "b*", *outputs, *more]
    with (
        contextlib.suppress(SystemExit),  # taken from the cache
        Job(arguments, inputs=["read"], outputs=["text", "model", "own"], argv=argv) as job,
    ):
        job.add_policy(DataPolicy(frozenset({"added"}), frozenset({"x"})))
        job.out["text"].write_text("text")
        (job.out["model"] / "sub").mkdir()
        (job.out["model"] / "sub/w").write_text("weights")
        with job.apply_output_policy(DataPolicy(frozenset({"own"})), "own"):
            table_io.write_table(job.out["own"], "files", [{"path": "p", "bytes": 1, "sha256": "0"}])
        job.watch_folder(Path("watched"), f"{folder}/own.parquet")
        job.extra_fields["more"] = {"told": 1}
        job.set_summary("made")
    return argv


def decide(folder: str, argv: list[str], store: Cache | None) -> dict[str, list[str]]:
    outputs = [f"{folder}/{name}" for name in ("t.txt", "m/files.parquet", "own.parquet")]
    command = cache.result_arguments(argv)
    code = code_digest.code_digest(PROGRAM)
    planned = PlannedJob("job", PROGRAM, command, CFG, code, [Path("a.parquet"), Path("b1")], [Path(p) for p in outputs])
    decision = decide_jobs([planned], Path(folder), store, take=True)
    return {"to_run": list(decision.to_run.values()), "from_cache": list(decision.from_cache.values())}


def digest_example(folder: Path) -> dict[str, Any]:
    """The digest of a fixed program, and what is kept of one of its files."""
    for name, text in CODE_EXAMPLE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    digest = code_digest.Checkout(folder, folder / "requirements.lock").code_digest("a.py")
    (kept,) = folder.glob("medmim/__pycache__/leaf.*.digest")
    return {"sha256": digest["sha256"], "modules": dict(digest["modules"]), "kept": json.loads(kept.read_text())}


def write_fixed_run() -> dict[str, Any]:
    """What the engine writes of a fixed job in the present folder, which is empty."""
    Path("watched").mkdir()
    table_io.write_table("a.parquet", "files", [])
    Path("b1").write_text("b")
    argv = run_job("r")
    record = job_record.read_record(Path("r/t.txt.prov.json"))
    read = {entry["path"]: entry["sha256"] for entry in job_record.input_files(record)}
    outputs = [entry["path"] for entry in job_record.output_files(record)]
    assert record["key"] == cache.job_key(PROGRAM, record["command"], record["cfg"], record["code"]["sha256"], read, outputs)
    (entry,) = Cache(Path("cache"), 1 << 40).list_entries()
    assert entry.stem == record["key"]
    run_job("again")
    fresh = decide("r", argv, None)
    stamps = HashCache(Path("r") / STAMPS_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medmim.provenance.staleness.SETTLE_SECONDS", -100.0)  # as of a file changed long ago
        stamps([Path("b1")])
    stamps.save()
    Path("r/own.parquet").unlink()
    restored = decide("r", argv, Cache(Path("cache"), 1 << 40))
    own_key = cache.job_key("p.py", ["--a", "in/a", "x", "--to", "out/t"], {"s": 1}, "0" * 64, {"in/a": "1" * 64}, ["out/t"])
    stamps_content = json.loads((Path("r") / STAMPS_NAME).read_text())
    entry_content = job_record.read_sealed_record(entry)
    assert record == entry_content.pop("record") | {"seal": record["seal"]}

    def list_changes(path: str) -> dict[str, Any]:
        restored_record = job_record.read_record(Path(path))
        assert record.keys() <= restored_record.keys()
        return {key: value for key, value in restored_record.items() if value != record.get(key)}

    written = {
        "files": list_files(Path("r")),
        "sidecar": record,
        "otherwise in one restored by the program": list_changes("again/t.txt.prov.json"),
        "otherwise in one restored by the plan": list_changes("r/t.txt.prov.json"),
        "cache entry without its record": entry_content,
        "index": read_table(Path("r/m/files.parquet")),
        "own policy": read_table(Path("r/own.parquet"))["metadata"],
        "journal": [*read_lines(Path("r/logs/rule.x.runs.jsonl")), *read_lines(Path("again/logs/rule.x.runs.jsonl"))],
        "stamps": stamps_content | {"stamps": {path: len(stamp) for path, stamp in stamps_content["stamps"].items()}},
        "decisions": {"fresh": fresh, "gone": restored},
        "key of an example": own_key,
    }
    digest = digest_example(Path("checkout").resolve())
    return blank_hashes(make_canonical(written), record) | {"code of an example": make_canonical(digest)}


def blank_hashes(value: Any, record: job_record.Record) -> Any:
    """Placeholders for the hashes that follow from the version of pyarrow and this checkout's code."""
    text = json.dumps(value)
    names = {record["key"]: "<key>", record["outputs"]["model"]["sha256"]: "<sha256 of the index>"}
    names |= {record["outputs"]["own"]["sha256"]: "<sha256 of own>", files.hash_file(Path("a.parquet")): "<sha256 of a>"}
    for sha256, name in names.items():
        text = text.replace(sha256, name)
    for entry in (*job_record.input_files(record), *job_record.output_files(record)):
        if entry["path"].endswith(".parquet"):
            text = text.replace(f'"bytes": {entry["bytes"]}', '"bytes": "<int>"')
    return json.loads(text)


@contextlib.contextmanager
def fixed_surroundings() -> Iterator[None]:
    """An empty present folder, and an environment in which nothing but the engine decides what is written."""
    root, handlers, level = logging.getLogger(), logging.root.handlers[:], logging.root.level
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [PROGRAM])
        patch.setattr(sys, "dont_write_bytecode", False)
        patch.setattr(sys, "pycache_prefix", None)
        patch.setattr(engine_version, "PYTHON_VERSION", "3.11")
        patch.setattr(Job, "_check_modules", lambda job: None)
        patch.setenv(cache.FOLDER_VARIABLE, "cache")
        for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURMD_NODENAME", "WORLD_SIZE", cache.LIMIT_VARIABLE):
            patch.delenv(name, raising=False)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def describe_written() -> dict[str, Any]:
    with fixed_surroundings():
        return {"ENGINE_VERSION": engine_version.ENGINE_VERSION, **write_fixed_run()}


def find_problem(golden: dict[str, Any], written: dict[str, Any]) -> str | None:
    """What is to be done about the committed file, None for nothing."""
    old, new = (json.dumps(v, indent=1, sort_keys=True, ensure_ascii=False).splitlines() for v in (golden, written))
    if old == new:
        return None
    changes = "\n".join([*difflib.unified_diff(old, new, GOLDEN.name, "written now", lineterm="", n=2)][:40])
    if golden["ENGINE_VERSION"] != written["ENGINE_VERSION"]:
        return f"ENGINE_VERSION is another than in {GOLDEN.name}: regenerate that file by `{COMMAND}`\n{changes}"
    return (
        f"the engine writes otherwise than {GOLDEN.name} has it, with the same ENGINE_VERSION: raise ENGINE_VERSION in "
        f"{VERSION_FILE} and regenerate by `{COMMAND}`\n{changes}"
    )


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="its digests are those of Python 3.11's parser: make PYTHON=/path/to/python3.11 test"
)
def test_what_the_engine_writes_changes_only_with_its_version() -> None:
    problem = find_problem(json.loads(GOLDEN.read_text(encoding="utf-8")), describe_written())
    assert problem is None, problem


def test_two_runs_write_the_same() -> None:
    assert describe_written() == describe_written()


def test_a_change_and_a_version_alone_are_told() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    changed = golden | {"key of an example": "0"}
    assert find_problem(golden, golden) is None
    assert "raise ENGINE_VERSION in workflow/medmim/provenance/engine_version.py and regenerate by `python tests/" in str(
        find_problem(golden, changed)
    )
    for other in (golden, changed):
        problem = find_problem(golden, other | {"ENGINE_VERSION": golden["ENGINE_VERSION"] + 1})
        assert "regenerate that file by `python tests/" in str(problem)


def main() -> None:
    written = describe_written()
    if GOLDEN.exists():
        golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
        if golden != written and golden["ENGINE_VERSION"] == written["ENGINE_VERSION"]:
            sys.exit(f"{find_problem(golden, written)}")
    GOLDEN.write_text(json.dumps(written, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

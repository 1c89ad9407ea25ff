import errno
import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config_files import config_file
from medmim.common import files
from medmim.provenance import code_digest, engine_version, job_record, staleness
from medmim.provenance.cache import FOLDER_VARIABLE, Cache, result_arguments
from medmim.provenance.job import Job, build_parser
from medmim.provenance.staleness import HashCache, PlannedJob, decide_jobs, describe_config_changes

PROGRAM = "index_files.py"
"""A program of this checkout whose name the jobs here bear, for its code."""


class Step:
    """A job that writes what it reads: planned as from a rule's shell command, run as a program runs."""

    def __init__(self, to: str, *read: str, **cfg: object) -> None:
        self.to, self.read, self.cfg, self.more, self.program = to, read, cfg, [], PROGRAM
        self.code = code_digest.code_digest(PROGRAM)

    @property
    def argv(self) -> list[str]:
        return [
            "--cfg",
            config_file(self.cfg),
            "--log",
            "l.log",
            "--read",
            *self.read,
            "--text",
            self.to,
            "--folder",
            f"{self.to}.d/files.parquet",
            *self.more,
        ]

    @property
    def planned(self) -> PlannedJob:
        words = ["python", f"/some where/workflow/scripts/{self.program}", "--code", "0" * 64, *self.argv]
        return PlannedJob.from_shell_command(
            f"rule {self.to}", shlex.join(words), self.cfg, self.code, self.read, [self.to, f"{self.to}.d/files.parquet"]
        )

    def run(self) -> "Step":
        arguments = build_parser("")
        for name in ("--text", "--folder"):
            arguments.add_argument(name, type=Path)
        arguments.add_argument("--read", type=Path, nargs="*")
        arguments.add_argument("--threads", type=int)
        arguments.add_argument("--kind")
        with Job(arguments, inputs=["read"], outputs=["text", "folder"], argv=self.argv) as job:
            job.out["text"].write_text("".join(p.read_text() for p in job.args.read))
            for name in "ab":
                (job.out["folder"] / name).write_text(f"{name} of {self.cfg}")
        return self


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [PROGRAM])
    Path("raw").write_text("raw")
    Path("more").write_text("more")
    handlers, level = logging.root.handlers[:], logging.root.level
    yield tmp_path
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def step() -> Step:
    return Step("r/x", "raw", "more", seed=1, parts={"a": [1, 2], "b": None}).run()


def why(*steps: Step) -> dict[str, str]:
    """Reasons by the job's first output."""
    return {
        job.outputs[0].as_posix(): reason for job, reason in decide_jobs([s.planned for s in steps], Path("r")).to_run.items()
    }


def older(path: Path | str, seconds: float = 100) -> None:
    stat = Path(path).stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - int(seconds * 1e9)))


def test_what_was_just_made_is_fresh(step: Step) -> None:
    assert why(step) == {}


def test_what_was_never_made_is_new() -> None:
    assert why(Step("r/x", "raw")) == {"r/x": staleness.NOT_MADE_YET}


# What changes nothing


def test_times_change_nothing(step: Step) -> None:
    for path in ("raw", "r/x", "r/x.prov.json", "r/x.d/files.parquet", "r/x.d/files.parquet.prov.json"):
        Path(path).touch()
        older(path, -1000)
    assert why(step) == {}


def test_times_of_a_folders_files_change_nothing(step: Step) -> None:
    older("r/x.d/a")
    assert why(step) == {}
    Path("r/x.d/b").touch()
    assert why(step) == {}


def test_a_copy_is_as_fresh(step: Step, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, folder / "copy", copy_function=shutil.copyfile)
    monkeypatch.chdir(folder / "copy")
    assert why(step) == {}


def test_a_file_written_again_as_it_was_changes_nothing(step: Step) -> None:
    for path in ("raw", "r/x"):
        data = Path(path).read_bytes()
        Path(path).unlink()
        Path(path).write_bytes(data)
    assert why(step) == {}


def test_layout_of_the_command_changes_nothing(step: Step) -> None:
    words = [
        f"/x/workflow/scripts/{PROGRAM}",
        "--cfg",
        "another.json",
        *step.argv[2:],
        "--threads",
        "4",
        "--log",
        "other",
    ]
    outputs = [p.as_posix() for p in step.planned.outputs]
    shell = f"python {shlex.join(words)}".replace(" --", "   --")
    planned = PlannedJob.from_shell_command("x", shell, dict(reversed(step.cfg.items())), step.code, step.read, outputs)
    assert decide_jobs([planned], Path("r")).to_run == {}


def test_strangers_change_nothing(step: Step) -> None:
    shutil.rmtree(".snakemake", ignore_errors=True)
    Path("r/.stamps.json").unlink(missing_ok=True)
    Path("r/note.txt").write_text("mine")
    Path("r/x.d/.a.partial-vm-1").write_text("unfinished")
    assert why(step) == {}


# What has to run, and why


def test_an_altered_output(step: Step) -> None:
    Path("r/x").write_text("rawmorE")
    assert why(step) == {"r/x": "r/x was altered"}


def test_an_altered_output_of_the_same_size_and_time(step: Step) -> None:
    assert why(step) == {}
    stat = Path("r/x").stat()
    Path("new").write_text("rawmorE")
    os.utime("new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    Path("new").replace("r/x")
    assert why(step) == {"r/x": "r/x was altered"}


def write_in_place(path: str) -> None:
    """Write over a file, the small letters large and back, and set its time back as `rsync --inplace --times` does."""
    stat = Path(path).stat()
    Path(path).write_text(Path(path).read_text().swapcase())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    while Path(path).stat().st_ctime_ns == stat.st_ctime_ns:  # a file system's clock may stand for some milliseconds
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.usefixtures("settled")
def test_a_change_in_place_that_keeps_size_and_time(step: Step) -> None:
    assert why(step) == {}
    write_in_place("r/x.d/a")
    assert why(step) == {"r/x": "a file in r/x.d has changed"}
    write_in_place("r/x.d/a")
    assert why(step) == {}
    write_in_place("r/x")
    assert why(step) == {"r/x": "r/x was altered"}


def test_an_output_that_is_gone(step: Step) -> None:
    Path("r/x").unlink()
    assert why(step) == {"r/x": "r/x is gone"}


def test_a_lost_sidecar(step: Step) -> None:
    Path("r/x.prov.json").unlink()
    assert why(step) == {"r/x": "r/x has no provenance"}
    Path("r/x").unlink()
    assert why(step) == {"r/x": staleness.NOT_MADE_YET}


def test_an_altered_sidecar(step: Step) -> None:
    path = Path("r/x.prov.json")
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    assert why(step) == {"r/x": "the provenance of r/x was altered"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format_version": 3}, "was written in format version 3, and this checkout reads version 2"),
        ({"format_version": None}, "was written before formats had versions, and this checkout reads version 2"),
        ({"inputs": None}, "lacks inputs: another version of this workflow wrote it"),
        ({"outputs": {"text": {"path": "r/x"}}}, "lacks outputs.text.bytes, outputs.text.sha256: another version of this"),
    ],
    ids=["newer", "older", "no inputs", "no hash"],
)
def test_a_sealed_record_of_another_version(step: Step, change: dict[str, object], reason: str) -> None:
    for name in ("r/x.prov.json", "r/x.d/files.parquet.prov.json"):
        job_record.write_record(Path(name), job_record.read_sealed_record(Path(name)) | change)
    assert why(step)["r/x"].startswith(f"the record of r/x {reason}")
    step.run()
    assert why(step) == {}


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [("ENGINE_VERSION", 1, 2, "engine version 1 → 2"), ("PYTHON_VERSION", "3.11", "3.12", "Python 3.11 → 3.12")],
)
def test_a_record_of_another_engine_or_python(
    monkeypatch: pytest.MonkeyPatch, name: str, old: object, new: object, reason: str
) -> None:
    store = Cache(Path("cache"), 1 << 40)
    monkeypatch.setenv(FOLDER_VARIABLE, "cache")
    monkeypatch.setattr(engine_version, name, old)
    chain = [Step("r/x", "raw").run(), Step("r/y", "r/x").run()]
    monkeypatch.setattr(engine_version, name, new)
    decision = decide_jobs([s.planned for s in chain], Path("r"), store, take=True)
    assert [*decision.to_run.values()] == [reason] * 2 and decision.from_cache == {}
    for step in chain:
        step.run()
    monkeypatch.setattr(engine_version, name, old)
    decision = decide_jobs([s.planned for s in chain], Path("r"), store, take=True)
    assert decision.to_run == {} and len(decision.from_cache) == 2, "as the cache has them of that version"


def test_outputs_of_two_jobs(step: Step) -> None:
    other = Path("r/x.prov.json").read_bytes()
    step.run()
    Path("r/x.prov.json").write_bytes(other)
    assert why(step) == {"r/x": "its outputs are not of one job"}


def test_outputs_swapped_with_their_sidecars(step: Step) -> None:
    other = Step("r/y", "more", seed=1).run()
    for name in ("", ".prov.json"):
        Path(f"r/x{name}").rename("aside")
        Path(f"r/y{name}").rename(f"r/x{name}")
        Path("aside").rename(f"r/y{name}")
    assert why(step, other) == {"r/x": "its outputs are not of one job", "r/y": "its outputs are not of one job"}


def test_another_program(step: Step) -> None:
    step.program = "another.py"
    assert why(step) == {"r/x": f"made by {PROGRAM}"}


def test_another_config(step: Step) -> None:
    step.cfg = {"seed": 2, "parts": {"a": [1, 3], "c": "é"}}
    assert why(step) == {"r/x": 'config: parts.a [1, 2] → [1, 3], parts.b null → none, parts.c none → "é" and 1 more'}


def test_another_code(step: Step) -> None:
    modules = step.code["modules"] | {"medmim.common.files": "0" * 64, "medmim.more": "1" * 64}
    step.code = step.code | {"sha256": "2" * 64, "modules": modules}
    assert why(step) == {"r/x": "code: medmim.common.files, medmim.more (new)"}


def test_another_command(step: Step) -> None:
    made = shlex.join(result_arguments(step.argv))
    step.more = ["--kind", "b"]
    assert why(step) == {"r/x": f"its command was {made}"}


def test_a_changed_input(step: Step) -> None:
    Path("raw").write_text("Raw")
    assert why(step) == {"r/x": "raw has changed"}


def test_inputs_swapped(step: Step) -> None:
    a, b = Path("raw").read_text(), Path("more").read_text()
    Path("raw").write_text(b)
    Path("more").write_text(a)
    assert why(step).keys() == {"r/x"}


@pytest.mark.parametrize("change", ["changed", "gone", "new", "renamed", "endless"])
def test_a_folder_whose_files_are_not_those_listed(step: Step, change: str) -> None:
    path = Path("r/x.d/a")
    if change == "changed":
        path.write_text("A")
    elif change == "gone":
        path.unlink()
    elif change == "new":
        Path("r/x.d/c").write_text("c")
    elif change == "endless":  # the job that reads it says what is wrong
        Path("r/x.d/c").symlink_to(".")
    else:
        path.rename("r/x.d/c")
    assert why(step) == {"r/x": "a file in r/x.d has changed"}


def test_the_first_reason_is_told_of_each_job() -> None:
    first, second = Step("r/x", "raw", seed=1).run(), Step("r/y", "raw", seed=1).run()
    first.cfg = {"seed": 2}
    Path("r/y").unlink()
    assert why(first, second) == {"r/x": "config: seed 1 → 2", "r/y": "r/y is gone"}


# Chains


@pytest.fixture
def chain(step: Step) -> list[Step]:
    return [step, Step("r/y", "r/x", seed=1).run(), Step("r/z", "r/y", seed=1).run()]


def test_what_follows_is_left_to_snakemake(chain: list[Step]) -> None:
    chain[0].cfg = chain[0].cfg | {"seed": 2}
    assert why(*chain) == {"r/x": "config: seed 1 → 2"}


def test_what_another_job_makes_anew_is_no_reason(chain: list[Step]) -> None:
    Path("r/x").write_text("altered")
    assert why(*chain) == {"r/x": "r/x was altered"}


def test_a_job_that_did_not_follow_is_stale(chain: list[Step]) -> None:
    Path("more").write_text("More")
    chain[0].run()
    assert why(*chain) == {"r/y": "r/x has changed"}


def test_a_job_made_anew_with_the_same_bytes_makes_none_stale(chain: list[Step]) -> None:
    chain[0].run()
    assert why(*chain) == {}


def test_reasons_are_told_in_the_order_of_the_plan() -> None:
    steps = [Step(f"r/{n}", "raw", seed=1).run() for n in range(12)]
    Path("raw").write_text("Raw")
    assert [*why(*steps)] == [s.to for s in steps]


# What the cache has


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv(FOLDER_VARIABLE, "cache")
    return Cache(Path("cache"), 1 << 40)


def bytes_of(*steps: Step) -> dict[str, bytes]:
    paths = [p for s in steps for p in (Path(s.to), *Path(f"{s.to}.d").iterdir()) if not p.name.endswith(files.SIDECAR_SUFFIX)]
    return {str(p): p.read_bytes() for p in paths}


def test_a_lost_run_is_taken_from_the_cache(store: Cache, chain: list[Step]) -> None:
    made = bytes_of(*chain)
    shutil.rmtree("r")
    told = decide_jobs([s.planned for s in chain], Path("r"), store, take=True)
    assert told.to_run == {} and list(told.from_cache.values()) == [staleness.NOT_MADE_YET] * 3
    assert bytes_of(*chain) == made
    assert why(*chain) == {}


def test_a_record_from_the_cache_is_as_the_job_would_write_it(store: Cache, step: Step) -> None:
    before = job_record.read_record(Path("r/x.prov.json"))
    shutil.rmtree("r")
    assert decide_jobs([step.planned], Path("r"), store, take=True).to_run == {}
    after = job_record.read_record(Path("r/x.prov.json"))
    assert after.pop("restored").keys() == {"at", "host"}
    assert {k for k in after if after[k] != before[k]} <= {"folders", "seal"}  # the folder's time is another
    shutil.rmtree("r")
    with pytest.raises(SystemExit) as ended:  # the program itself finds the same entry
        step.run()
    assert ended.value.code == 0


def test_another_folder_takes_from_the_same_cache(store: Cache, chain: list[Step]) -> None:
    made = list(bytes_of(*chain).values())
    there = [Step(s.to.replace("r/", "other/"), *(p.replace("r/", "other/") for p in s.read), **s.cfg) for s in chain]
    assert decide_jobs([s.planned for s in there], Path("other"), store, take=True).to_run == {}
    assert list(bytes_of(*there).values()) == made
    assert why(*there) == {}


def test_a_dry_run_takes_nothing(store: Cache, chain: list[Step]) -> None:
    shutil.rmtree("r")
    told = decide_jobs([s.planned for s in chain], Path("r"), store)
    assert len(told.from_cache) == 3 and told.to_run == {} and not Path("r").exists()


def test_a_change_stops_where_the_cache_has_what_follows(store: Cache, chain: list[Step]) -> None:
    Path("r/x").unlink()  # in place, it would damage the cache, which has the same file
    Path("r/x").write_text("altered")
    told = decide_jobs([s.planned for s in chain], Path("r"), store, take=True)
    assert [job.name for job in told.from_cache] == ["rule r/x"] and told.to_run == {}
    assert Path("r/x").read_text() == "rawmore"


def test_what_rests_on_a_job_that_runs_waits_for_it(store: Cache, chain: list[Step]) -> None:
    chain[0].cfg = {"seed": 2}
    Path("r/z").unlink()
    told = decide_jobs([s.planned for s in chain], Path("r"), store, take=True)
    assert [job.name for job in told.to_run] == ["rule r/x", "rule r/z"] and told.from_cache == {}
    assert not Path("r/z").exists()


def test_a_damaged_entry_makes_the_job_run(store: Cache, step: Step, caplog: pytest.LogCaptureFixture) -> None:
    blob = store.folder / "blobs" / (sha := files.hash_file(Path("r/x")))[:2] / sha
    blob.unlink()
    blob.write_text("other")
    shutil.rmtree("r")
    told = decide_jobs([step.planned], Path("r"), store, take=True)
    assert [*told.to_run.values()] == [staleness.NOT_MADE_YET] and told.from_cache == {}
    assert str(blob) in caplog.text


# Hashes


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files hashed."""
    names: list[str] = []
    hash_of = files.hash_file
    monkeypatch.setattr(files, "hash_file", lambda path: names.append(path.name) or hash_of(path))
    return names


def hashed(*names: str) -> dict[Path, str | None]:
    """As a new process finds them."""
    remembered = HashCache(Path("stamps.json"))
    found = remembered(map(Path, names))
    remembered.save()
    return found


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files were changed long ago: the time of that can't be set back."""
    now = time.time() + 100
    monkeypatch.setattr(staleness.time, "time", lambda: now)


@pytest.mark.usefixtures("settled")
def test_a_file_is_hashed_once(read: list[str]) -> None:
    assert hashed("raw", "more", "raw", "absent") == {
        Path("raw"): files.hash_file(Path("raw")),
        Path("more"): files.hash_file(Path("more")),
        Path("absent"): None,
    }
    read.clear()
    assert hashed("more", "raw")[Path("raw")] == hashlib.sha256(b"raw").hexdigest()
    assert read == []


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", ["size", "time", "inode", "content alone"])
def test_what_may_have_changed_is_hashed_again(read: list[str], change: str) -> None:
    hashed("raw")
    stat = Path("raw").stat()
    if change == "inode":
        Path("new").write_text("Raw")
        Path("new").replace("raw")
    elif change == "content alone":
        write_in_place("raw")
    else:
        Path("raw").write_text("Raw, longer" if change == "size" else "Raw")
    os.utime("raw", ns=(stat.st_atime_ns, stat.st_mtime_ns + (change == "time")))
    read.clear()
    assert hashed("raw") == {Path("raw"): files.hash_file(Path("raw"))}
    assert read[0] == "raw"


@pytest.mark.usefixtures("settled")
def test_a_link_to_a_file_is_looked_at_once(read: list[str]) -> None:
    hashed("raw")
    Path("link").hardlink_to("raw")
    hashed("raw")
    hashed("raw")
    assert read == ["raw"] * 2


def test_a_file_just_written_is_not_remembered(read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hashed("raw")
    monkeypatch.setattr(staleness.time, "time", lambda: 0.0)  # the clock was set back
    hashed("raw")
    hashed("raw")
    assert read == ["raw"] * 3


@pytest.mark.usefixtures("settled")
def test_a_store_that_may_not_be_written_only_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int = 0) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "replace", refuse)
    assert hashed("raw") == {Path("raw"): files.hash_file(Path("raw"))}
    assert not Path("stamps.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"raw": 1}', "\\xff", '{"format_version": 2}'),
        *(
            f'{{"format_version": 2, "stamps": {stamps}}}'
            for stamps in ('{"raw": 1}', '{"raw": []}', '{"raw": ["a", "b", "c", "d"]}')
        ),
    ],
)
def test_a_damaged_store_only_costs_time(text: str) -> None:
    Path("stamps.json").write_bytes(text.encode().replace(b"\\xff", b"\xff"))
    assert hashed("raw") == {Path("raw"): files.hash_file(Path("raw"))}


@pytest.mark.usefixtures("settled")
def test_nothing_is_remembered_where_there_is_no_folder() -> None:
    remembered = HashCache(Path("absent/stamps.json"))
    remembered([Path("raw")])
    remembered.save()
    assert not Path("absent").exists()


@pytest.mark.usefixtures("settled")
def test_stamps_of_another_version_are_not_read(read: list[str]) -> None:
    hashed("raw")
    content = json.loads(Path("stamps.json").read_text())
    for changed in (content | {"format_version": 1}, content["stamps"]):
        Path("stamps.json").write_text(json.dumps(changed))
        read.clear()
        hashed("raw")
        assert read == ["raw"]
    read.clear()
    hashed("raw")
    assert read == [], "written again in this version"


# What is told, and what is read of a command


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a 1 → 2"]),
        ({"a": {"b": {"c": True}}}, {"a": {"b": {"c": False}}}, ["a.b.c true → false"]),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, ["a 1 → none", "b 2 → 3", "c none → 4"]),
        ({"a": None}, {}, ["a null → none"]),
        ({"a": [1]}, {"a": {"b": 1}}, ['a [1] → {"b": 1}']),
        ({"a": "größe"}, {"a": ""}, ['a "größe" → ""']),
    ],
)
def test_changes_of_a_config_are_told(old: object, new: object, told: list[str]) -> None:
    assert describe_config_changes(old, new) == told


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        ("--cfg f --code 0 --log l --read a b --to c", "--read a b --to c"),
        ("--read a --threads 4 --to c", "--read a --to c"),
        ("--threads=4 --read a --log=l --cfg=f", "--read a"),
        ("--log --threads --read a", "--read a"),
        ("--logs l --thread 4", "--logs l --thread 4"),
        ("--read a --cfg f", "--read a"),
    ],
)
def test_a_command_without_what_changes_no_result(argv: str, kept: str) -> None:
    assert result_arguments(argv.split()) == kept.split()


def test_a_job_is_read_from_its_shell_command() -> None:
    shell = (
        "python -m torch.distributed.run --nproc-per-node 2 '/a b/workflow/scripts/tune.py' "
        "--cfg 'not there.json' --code 0 --log l.log --model 'r/m 1/files.parquet'"
    )
    job = PlannedJob.from_shell_command("tune m", shell, {"x": 1}, {"sha256": "0"}, ["a"], ["r/m 1/files.parquet"])
    assert (job.name, job.program, job.cfg) == ("tune m", "tune.py", {"x": 1})
    assert job.command == ["--model", "r/m 1/files.parquet"] and job.outputs == [Path("r/m 1/files.parquet")]

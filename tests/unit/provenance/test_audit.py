"""The audit of a small run of real programs, made in a repository of its own, and tampered with in every way it names."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config_files import config_file
from medmim.common import files
from medmim.provenance import audit as module
from medmim.provenance import engine_version, job_record
from medmim.provenance.audit import audit_run, hash_files
from medmim.provenance.code_digest import Checkout

ROOT = Path(__file__).parents[3]
RUN, CACHE = Path("r"), Path("cache")
PHANTOM, USERS, OUTSIDE = "r/raw/vqa_rad/VQA_RAD Image Folder", "data", "own/findings.parquet"
QA, INDEX, LISTED = "r/qa/vqa_rad.parquet", "r/raw/vqa_rad/files.parquet", "r/sources/odir.parquet"
POSITIONS = pytest.mark.parametrize("at", [0, 0.5, 1], ids=["first", "middle", "last"])


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def committed(folder: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "code")


def call(code: Path, folder: Path, program: str, **options: str) -> None:
    """Run a program of a checkout; what it writes of inputs it read is relative to `folder`."""
    told = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, str(code / "workflow/scripts" / program), *told],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(code / "workflow"), "MEDMIM_CACHE": "cache", "MEDMIM_CACHE_LIMIT": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository "code" with this code committed; beside it a phantom's run, one of a user's folder, and their cache."""
    folder = tmp_path_factory.mktemp("audit")
    code = folder / "code"
    shutil.copytree(ROOT / "workflow", code / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.lock", code)
    (code / ".gitignore").write_text("__pycache__\n")
    committed(code)
    for source, raw in (("vqa_rad", "r/raw/vqa_rad"), ("odir", "data")):
        drawn = config_file({"patients": 4, "seed": 1})
        call(code, folder, "make_phantoms.py", cfg=drawn, source=source, raw=f"{raw}/files.parquet")
    for name in ("files.parquet", "files.parquet.prov.json"):
        (folder / "data" / name).unlink()
    call(code, folder, "index_files.py", root="data", index=LISTED)
    for source, root, raw in (("vqa_rad", "r/raw/vqa_rad", INDEX), ("odir", "data", LISTED)):
        tables = {name: f"r/images/{source}.{name}.parquet" for name in ("images", "findings", "rejected")}
        call(code, folder, "build_images.py", cfg=config_file({"size": 28}), source=source, root=root, raw=raw, **tables)
        del tables["rejected"]
        if source == "odir":
            (folder / "own").mkdir()
            shutil.copy(folder / tables["findings"], folder / OUTSIDE)
            tables["findings"] = OUTSIDE
        sets = {"benchmark": [{"vqa_rad": "rad"}.get(source, source)]}
        cfg = config_file({"seed": 1, "sets": sets, "benchmark_fraction": 0.5, "open_fraction": 0.5})
        call(code, folder, "generate_qa.py", cfg=cfg, source=source, qa=f"r/qa/{source}.parquet", **tables)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `made` to tamper with, each file a copy of its own, as the present folder; the repository's folder."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return tmp_path / "copy/code"


def audited(code: Path) -> set[tuple[str, str]]:
    checkout = Checkout(code / "workflow", code / "requirements.lock")
    return {(f["kind"], f["path"]) for f in audit_run(RUN, [Path(QA)], CACHE, checkout)["faults"]}


def detail(code: Path, kind: str, path: str = "") -> str:
    checkout = Checkout(code / "workflow", code / "requirements.lock")
    found = audit_run(RUN, [], CACHE, checkout)["faults"]
    return next(f["detail"] for f in found if f["kind"] == kind and path in f["path"])


def flip(path: Path, at: float = 0.5) -> str:
    data = bytearray(path.read_bytes())
    data[round(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    return path.as_posix()


def reseal(path: Path, change: Callable[[job_record.Record], object]) -> None:
    """Change a record as one would who knows how it is sealed."""
    record = job_record.read_sealed_record(path)
    change(record)
    job_record.write_record(path, record)


def test_a_whole_run_passes(run: Path) -> None:
    found = audit_run(RUN, [Path(QA)], CACHE, Checkout(run / "workflow", run / "requirements.lock"))
    raw = [p for folder in (RUN / "raw/vqa_rad", Path(USERS)) for p in files.list_files(folder)]
    assert found == {"artifacts": 10, "files": len(raw), "faults": []}


@POSITIONS
@pytest.mark.parametrize("path", [QA, INDEX, LISTED, OUTSIDE, "r/images/odir.rejected.parquet"])
def test_a_flipped_byte_of_an_artifact_or_input(run: Path, path: str, at: float) -> None:
    flip(Path(path), at)
    assert audited(run) == {("altered", path)}


@POSITIONS
@pytest.mark.parametrize("folder", [PHANTOM, f"{USERS}/Training Images"])
def test_a_flipped_byte_of_a_raw_image(run: Path, folder: str, at: float) -> None:
    path = flip(sorted(Path(folder).iterdir())[-1], at)
    assert audited(run) == {("altered", path)}


@POSITIONS
@pytest.mark.parametrize("path", [QA, INDEX, LISTED, "r/images/odir.images.parquet"])
def test_a_flipped_byte_of_a_sidecar(run: Path, path: str, at: float) -> None:
    sidecar = flip(job_record.sidecar_path(Path(path)), at)
    assert audited(run) == {("damaged sidecar", sidecar)}


@POSITIONS
@pytest.mark.parametrize("part", ["blobs", "jobs"])
def test_a_flipped_byte_of_the_cache(run: Path, part: str, at: float) -> None:
    path = flip(sorted((CACHE / part).glob("*/*"))[0], at)
    assert audited(run) == {("damaged cache entry", path)}


def test_a_flip_through_a_hard_link_is_found_on_both_sides(run: Path) -> None:
    sha256 = files.hash_file(Path(QA))
    blob = CACHE / "blobs" / sha256[:2] / sha256
    blob.unlink()
    blob.hardlink_to(QA)
    flip(Path(QA))
    assert audited(run) == {("altered", QA), ("damaged cache entry", blob.as_posix())}


def test_a_sidecar_of_another_file(run: Path) -> None:
    place = job_record.sidecar_path(Path(QA))
    shutil.copy(job_record.sidecar_path(Path("r/qa/odir.parquet")), place)
    assert audited(run) == {("damaged sidecar", place.as_posix())}
    assert "speaks of r/qa/odir.parquet, not of vqa_rad.parquet" in detail(run, "damaged sidecar")


def test_two_sidecars_swapped(run: Path) -> None:
    one, other = (job_record.sidecar_path(Path("r/qa", f"{source}.parquet")) for source in ("vqa_rad", "odir"))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    assert audited(run) == {("damaged sidecar", one.as_posix()), ("damaged sidecar", other.as_posix())}


def test_sidecars_of_one_job_that_differ(run: Path) -> None:
    one, other = (Path(f"r/images/odir.{name}.parquet.prov.json") for name in ("images", "rejected"))
    reseal(one, lambda record: record.update(summary="12 images"))
    assert audited(run) == {("damaged sidecar", one.as_posix()), ("damaged sidecar", other.as_posix())} | {
        ("damaged sidecar", "r/images/odir.findings.parquet.prov.json")
    }
    assert "another job than that of" in detail(run, "damaged sidecar", "rejected")


def test_a_sealed_record_that_is_no_jobs(run: Path) -> None:
    place = job_record.sidecar_path(Path(QA))
    reseal(place, lambda record: record.pop("inputs"))
    assert audited(run) == {("other version", place.as_posix())}
    assert detail(run, "other version") == "lacks inputs: another version of this workflow wrote it: run snakemake again"


def test_a_sidecar_of_another_format_version(run: Path) -> None:
    place = job_record.sidecar_path(Path(QA))
    for version, problem in ((3, "was written in format version 3"), (None, "was written before formats had versions")):
        reseal(place, lambda record, version=version: record.update(format_version=version))
        assert audited(run) == {("other version", place.as_posix())}
        assert problem in detail(run, "other version")


def test_a_record_of_another_engine_or_python(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reseal(job_record.sidecar_path(Path(QA)), lambda record: record.update(python="3.9"))
    assert audited(run) == {("other code", QA)}
    assert detail(run, "other code").endswith(f"Python 3.9 → {engine_version.PYTHON_VERSION}")
    version = engine_version.ENGINE_VERSION
    monkeypatch.setattr(engine_version, "ENGINE_VERSION", version + 1)
    assert f"engine version {version} → {version + 1}" in detail(run, "other code", QA)
    assert {kind for kind, _ in audited(run)} == {"other code"}


def test_a_cache_entry_of_another_version_is_no_fault_of_this_run(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = min((CACHE / "jobs").glob("*/*"))
    reseal(path, lambda entry: entry.update(format_version=2))
    assert audited(run) == set()
    assert caplog.messages[0].endswith("cache: 1 entries of another format version are not checked")


@pytest.mark.parametrize("other", [QA, job_record.sidecar_path(Path(QA))], ids=["a table", "no table"])
def test_an_index_sealed_anew_that_is_none(run: Path, other: Path) -> None:
    shutil.copy(other, LISTED)
    sha256 = files.hash_file(Path(LISTED))
    reseal(job_record.sidecar_path(Path(LISTED)), lambda record: record["outputs"]["index"].update(sha256=sha256))
    assert ("altered", LISTED) in audited(run) and "is not an index of files" in detail(run, "altered")


@pytest.mark.parametrize("path", [QA, f"{PHANTOM}/*", "data/full_df.csv", OUTSIDE])
def test_a_missing_file(run: Path, path: str) -> None:
    path = next(Path().glob(path)).as_posix()
    Path(path).unlink()
    assert audited(run) == {("missing", path)}
    assert detail(run, "missing").endswith("is gone")


def test_a_file_that_is_no_file(run: Path) -> None:
    Path(QA).unlink()
    Path(QA).mkdir()
    assert audited(run) == {("missing", QA)} and "can't be read" in detail(run, "missing")


def test_an_artifact_gone_with_its_sidecar(run: Path) -> None:
    path = Path("r/images/vqa_rad.rejected.parquet")
    job_record.sidecar_path(path).unlink()
    assert audited(run) == {("no provenance", path.as_posix())}
    path.unlink()
    assert audited(run) == {("missing", path.as_posix())}


def test_what_was_expected_and_not_made(run: Path) -> None:
    found = audit_run(RUN, [Path("r/no")], None, Checkout(run / "workflow", run / "requirements.lock"))["faults"]
    assert found == [{"kind": "missing", "path": "r/no", "detail": "was not made: run the workflow first"}]
    assert {"kind": "missing", "path": "own", "detail": "is no run: there is no sidecar in it"} in audit_run(Path("own"))[
        "faults"
    ]


@pytest.mark.parametrize("path", ["r/stray.parquet", f"{PHANTOM}/extra.jpg", "data/extra.jpg", "r/qa/logs"])
def test_an_orphaned_file(run: Path, path: str) -> None:
    Path(path).write_text("x")
    assert audited(run) == {("orphaned", path)}


def test_what_is_no_artifact_is_left_alone(run: Path) -> None:
    for path in ("r/logs/x.log", "r/checkpoints/m/y", "r/audit.json", "r/.stamps.json", "r/ro-crate-metadata.json"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("x")
    assert audited(run) == set()


def test_a_cache_in_the_runs_folder_is_no_orphan(run: Path) -> None:
    Path("cache").rename("r/cache")
    found = audit_run(RUN, [], Path("r/cache"), Checkout(run / "workflow", run / "requirements.lock"))
    assert found["faults"] == []


def test_links_between_jobs(run: Path) -> None:
    """An artifact replaced together with its sidecar, resealed: the consumer tells."""
    flip(Path("r/images/vqa_rad.findings.parquet"))
    sha256 = files.hash_file(Path("r/images/vqa_rad.findings.parquet"))
    for name in ("images", "findings", "rejected"):
        sidecar = Path(f"r/images/vqa_rad.{name}.parquet.prov.json")
        reseal(sidecar, lambda record: record["outputs"]["findings"].update(sha256=sha256))
    assert audited(run) == {("broken link", "r/images/vqa_rad.findings.parquet")}
    assert "r/qa/vqa_rad.parquet was made from other bytes" in detail(run, "broken link")


def test_an_input_that_nothing_made(run: Path) -> None:
    for name in ("", ".prov.json"):
        Path(f"{QA}{name}").unlink()
    entry = {"path": "r/unmade.parquet", "bytes": 1, "sha256": "0" * 64}
    reseal(Path("r/qa/odir.parquet.prov.json"), lambda record: record["inputs"].update(images=[entry]))
    checkout = Checkout(run / "workflow", run / "requirements.lock")
    found = {(f["kind"], f["path"]) for f in audit_run(RUN, [], CACHE, checkout)["faults"]}
    assert found == {("no provenance", "r/unmade.parquet")}


def test_two_jobs_that_read_other_bytes_of_one_outside_file(run: Path) -> None:
    entry = {"path": OUTSIDE, "bytes": 1, "sha256": "0" * 64}
    reseal(Path("r/qa/vqa_rad.parquet.prov.json"), lambda record: record["inputs"].update(findings=[entry]))
    assert audited(run) == {("broken link", OUTSIDE)}


def test_a_cache_record_of_another_key_or_without_its_blob(run: Path) -> None:
    one, other = sorted((CACHE / "jobs").glob("*/*"))[:2]
    needed = [sha for paths in job_record.read_sealed_record(other)["outputs"].values() for sha in paths.values()]
    shutil.copy(other, one)
    assert audited(run) == {("damaged cache entry", one.as_posix())}
    (CACHE / "blobs" / needed[0][:2] / needed[0]).unlink()
    assert audited(run) >= {("damaged cache entry", one.as_posix()), ("damaged cache entry", other.as_posix())}
    assert "is gone" in detail(run, "damaged cache entry", other.as_posix())


@pytest.mark.parametrize("kind", ["blobs", "jobs"])
def test_a_cache_entry_that_may_not_be_read_is_no_damage(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hidden = min(path for path in (CACHE / kind).glob("*/*"))
    read_bytes, open_file = Path.read_bytes, os.open

    def refuse(path: Path | str) -> None:
        if Path(path).name == hidden.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path) or read_bytes(path))
    monkeypatch.setattr(os, "open", lambda path, *flags, **more: refuse(path) or open_file(path, *flags, **more))
    assert audited(run) == set()
    assert f"{hidden}: can't be read" in caplog.text and "1 such file" in caplog.text


def test_files_being_written_to_the_cache_and_an_absent_cache(run: Path) -> None:
    (CACHE / "blobs/00").mkdir(exist_ok=True)
    (CACHE / "blobs/00/.0.partial-1").write_text("x")
    assert audited(run) == set()
    shutil.rmtree(CACHE)
    assert audited(run) == set()


def test_other_code_names_the_modules(run: Path) -> None:
    with (run / "workflow/medmim/questions/generate.py").open("a") as f:
        f.write("CHANGED = True\n")
    (run / "workflow/medmim/sources/vqa_rad/phantom.py").unlink()
    lock = run / "requirements.lock"
    lock.write_text(lock.read_text().replace("pydicom==", "pydicom==9"))
    assert audited(run) == {("other code", path) for path in (INDEX, QA, "r/qa/odir.parquet")}
    assert "medmim.questions.generate" in detail(run, "other code", QA)
    assert "medmim.sources.vqa_rad.phantom (gone)" in detail(run, "other code", INDEX)
    (run / "workflow/scripts/generate_qa.py").unlink()
    assert "scripts/generate_qa.py (gone)" in detail(run, "other code", QA)
    (run / "workflow/medmim/common/files.py").write_text("no code")
    assert "SyntaxError" in detail(run, "other code", LISTED)


def test_a_docstring_is_no_other_code(run: Path) -> None:
    path = run / "workflow/medmim/questions/generate.py"
    path.write_text("# a comment\n" + path.read_text())
    assert audited(run) == set()


def test_a_record_without_code_or_with_a_forged_digest(run: Path) -> None:
    reseal(job_record.sidecar_path(Path(QA)), lambda record: record.update(code={}))
    assert audited(run) == {("other code", QA), ("uncommitted code", QA)}
    reseal(job_record.sidecar_path(Path(QA)), lambda record: record.update(code={"sha256": "0", "modules": {}, "packages": {}}))
    assert audited(run) == {("other code", QA), ("uncommitted code", QA)}


def test_uncommitted_code_names_the_modules(run: Path) -> None:
    with (run / "workflow/medmim/common/files.py").open("a") as f:
        f.write("CHANGED = True\n")
    shutil.rmtree(RUN)
    call(run, Path(), "index_files.py", root="data", index=LISTED)
    checkout = Checkout(run / "workflow", run / "requirements.lock")
    assert [(f["kind"], f["path"]) for f in audit_run(RUN, checkout=checkout)["faults"]] == [("uncommitted code", LISTED)]
    assert "has other code: medmim.common.files" in detail(run, "uncommitted code")
    committed(run)
    assert "medmim.common.files" in detail(run, "uncommitted code")  # HEAD holds it, the recorded commit still does not
    call(run, Path(), "index_files.py", root="data", index=LISTED)
    assert audit_run(RUN, checkout=checkout)["faults"] == []


def test_a_commit_that_this_clone_lacks_is_compared_with_head(run: Path) -> None:
    shutil.rmtree(run / ".git")
    (run / "README").write_text("a new beginning")
    committed(run)
    assert audited(run) == set()
    with (run / "workflow/medmim/questions/generate.py").open("a") as f:
        f.write("CHANGED = True\n")
    git(run, "commit", "--all", "--quiet", "--message", "changed")
    git(run, "revert", "--no-commit", "HEAD")
    assert audited(run) == {("uncommitted code", path) for path in (QA, "r/qa/odir.parquet")}
    assert "is not here, but HEAD has other code: medmim.questions.generate" in detail(run, "uncommitted code")


def test_no_git_at_all_is_said_once(run: Path) -> None:
    shutil.rmtree(run / ".git")
    assert audited(run) == {("uncommitted code", "r")}


def test_a_commit_is_extracted_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    extract = module._CommitCheckouts._extract_commit
    monkeypatch.setattr(
        module._CommitCheckouts, "_extract_commit", lambda self, commit: asked.append(commit) or extract(self, commit)
    )
    assert audited(run) == set()
    assert len(asked) == 2 and asked[0] == "HEAD"


def test_an_absolute_path_to_the_run_will_do(run: Path) -> None:
    checkout = Checkout(run / "workflow", run / "requirements.lock")
    assert audit_run(RUN.absolute(), [Path(QA).absolute()], CACHE.absolute(), checkout)["faults"] == []


def test_hashes_of_many_files(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(150)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes(i) * (9000 if i == 149 else 1))  # an empty one, and one of several reads
    (tmp_path / "link").symlink_to(paths[3])
    found = hash_files([*paths, tmp_path / "link", tmp_path / "no", tmp_path])
    assert {path: found[path] for path in paths} == {path: files.hash_file(path) for path in paths}
    assert found[tmp_path / "link"] == found[paths[3]]
    assert isinstance(found[tmp_path / "no"], FileNotFoundError) and isinstance(found[tmp_path], OSError)


def test_a_file_of_several_names_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    read = []
    monkeypatch.setattr(module, "_hash_file", lambda path, size, tell: read.append(path) or "hash")
    assert hash_files([tmp_path / "a", tmp_path / "b"]) == {tmp_path / "a": "hash", tmp_path / "b": "hash"}
    assert len(read) == 1


def test_the_bar_counts_bytes_and_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rich.progress import Progress

    bars = []
    enter = Progress.__enter__
    monkeypatch.setattr(Progress, "__enter__", lambda self: bars.append(self) or enter(self))
    for name in "ab":
        (tmp_path / name).write_text("text")
    hash_files(tmp_path.iterdir())
    assert bars == []  # no terminal, no bar
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hash_files(tmp_path.iterdir())
    assert [(t.completed, t.total, t.fields) for t in bars[0].tasks] == [(8, 8, {"done": 2, "count": 2})]


def test_the_program_fails_naming_the_file(run: Path) -> None:
    def program(results: str) -> tuple[int, str]:
        command = [sys.executable, str(run / "workflow/scripts/audit.py"), "--results", results, "--cache", "cache"]
        environment = {**os.environ, "PYTHONPATH": str(run / "workflow")}
        done = subprocess.run([*command, "--json", f"{results}.json"], env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr

    status, told = program("r")
    assert status == 0 and "10 artifacts" in told
    path = flip(Path("data/full_df.csv"))
    status, told = program("r")
    assert status == 1 and f"altered: {path}: sha256 is" in told and "error: 1 fault in r" in told
    assert [f["path"] for f in json.loads(Path("r.json").read_text())["faults"]] == [path]
    status, told = program("no")
    assert status == 1 and "no: no such folder: run the workflow first" in told


def test_a_folder_that_may_not_be_read_is_a_fault(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it would else be passed over, as if it were not there."""
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if path == "r/qa":  # root may read any
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert ("unreadable", "r/qa") in audited(run)

"""Audit of a run: every file is hashed again, every sidecar's seal, every link and all code behind the results are checked.

Kinds of fault, each with the path it is about:

    altered               a file's bytes are not those recorded
    missing               a file that was made, listed, read or expected is not there
    broken link           a job read other bytes of a file than its producer's sidecar records
    no provenance         a file of the run was read or made, and no sidecar beside it says by what
    orphaned              a file that no sidecar and no index speaks of
    other version         a sidecar is of another version of its format than this checkout reads
    damaged sidecar       a sidecar is not as it was written, or not that of the file beside it
    damaged cache entry   a record or file of the cache is not as it was written, or gone
    other code            the code, engine or Python that made a file is not this checkout's
    uncommitted code      the code that made a file is not what its recorded commit holds
"""

import errno
import hashlib
import io
import logging
import os
import re
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medmim.common import files, watched_paths
from medmim.common.errors import RecordVersionError, SidecarError
from medmim.provenance import code_digest, engine_version, git, job_record
from medmim.provenance.cache import Cache, read_entry
from medmim.provenance.code_digest import Checkout, CodeDigest

log = logging.getLogger("medmim")
UNTRACKED_NAMES = (
    "logs",
    "checkpoints",
    "replies",
    "audit.json",
    "costs.html",
    "costs.parquet",
    ".stamps.json",
    ".config",
    "ro-crate-metadata.json",
    "ro-crate",
)
"""Names at the top of a run's folder that are not artifacts."""
CHUNK_BYTES = 1 << 18
"""Bytes read at a time."""
BATCH_FILES, BATCH_BYTES = 64, 1 << 24
"""What a thread takes at once: a task for each small file would cost more than hashing it."""

HashResult = str | OSError
"""Hex sha256 of a file, or why it can't be read."""


def _normalize_path(path: Path | str) -> Path:
    """One spelling of a path: below the present folder relative to it, absolute elsewhere; links are not followed."""
    return Path(os.path.abspath(path).removeprefix(f"{Path.cwd()}{os.sep}"))  # noqa: PTH100


def _hash_file(path: Path, size: int, report_bytes: Callable[[int], None]) -> HashResult:
    hasher = hashlib.sha256()
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            while chunk := os.read(file, min(size + 1, CHUNK_BYTES)):
                hasher.update(chunk)
                report_bytes(len(chunk))
        finally:
            os.close(file)
    except OSError as error:
        return error
    return hasher.hexdigest()


def _stat_files(paths: list[Path]) -> list[os.stat_result | OSError]:
    def stat_file(path: Path) -> os.stat_result | OSError:
        try:
            file_stat = path.stat()
        except OSError as error:
            return error
        return file_stat if stat.S_ISREG(file_stat.st_mode) else OSError(errno.EINVAL, "is not a file")

    return [stat_file(path) for path in paths]


def _iter_batches(sizes: dict[Path, int]) -> Iterator[list[Path]]:
    """Files to hash in one go, the largest first, so that no thread is left with one at the end."""
    batch: list[Path] = []
    batch_bytes = 0
    for path in sorted(sizes, key=lambda p: -sizes[p]):
        batch.append(path)
        batch_bytes += sizes[path]
        if len(batch) == BATCH_FILES or batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


@contextmanager
def _progress_bar(total: int, count: int) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Two functions to call with bytes and with files hashed; on a terminal they move a progress bar."""
    if not sys.stderr.isatty():
        yield lambda _: None, lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("audit"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[done]}/{task.fields[count]} files")
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("audit", total=total, done=0, count=count)

        def advance_files(done: int) -> None:
            progress.update(task, done=progress.tasks[0].fields["done"] + done)

        yield lambda read: progress.advance(task, read), advance_files


def hash_files(paths: Iterable[Path]) -> dict[Path, HashResult]:
    """sha256 of every file, on all cores (hashlib frees the interpreter's lock); a file of several names is read once."""
    unique_paths = list(dict.fromkeys(paths))
    results: dict[Path, HashResult] = {}
    names: dict[tuple[int, int], list[Path]] = {}
    sizes: dict[Path, int] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        path_batches = [unique_paths[i : i + BATCH_FILES] for i in range(0, len(unique_paths), BATCH_FILES)]
        for path, file_stat in zip(unique_paths, chain.from_iterable(pool.map(_stat_files, path_batches)), strict=True):
            if isinstance(file_stat, OSError):
                results[path] = file_stat
                continue
            linked_paths = names.setdefault((file_stat.st_dev, file_stat.st_ino), [])
            linked_paths.append(path)
            sizes[linked_paths[0]] = file_stat.st_size
        batches = list(_iter_batches(sizes))
        with _progress_bar(sum(sizes.values()), len(sizes)) as (tell_bytes, tell_files):
            for batch, batch_hashes in zip(
                batches, pool.map(lambda batch: [_hash_file(p, sizes[p], tell_bytes) for p in batch], batches), strict=True
            ):
                results.update(zip(batch, batch_hashes, strict=True))
                tell_files(len(batch))
    return results | {path: results[same[0]] for same in names.values() for path in same}


@dataclass(frozen=True)
class _RecordedJob:
    """What a sidecar tells of the job that made a file; paths as `_place` spells them."""

    program: str
    seal: str
    inputs: list[tuple[Path, str]]
    outputs: dict[Path, str]
    folders: list[tuple[Path, Path, Path | None]]
    """Index, folder, and the table of what counts there, None where all does."""
    code: CodeDigest
    commit: str
    engine_changes: str | None
    """As `describe_engine_changes` tells them."""

    @classmethod
    def from_record(cls, record: job_record.Record) -> "_RecordedJob":
        return cls(
            program=record["program"],
            seal=record["seal"],
            inputs=[(_normalize_path(e["path"]), e["sha256"]) for e in job_record.input_files(record)],
            outputs={_normalize_path(e["path"]): e["sha256"] for e in job_record.output_files(record)},
            folders=[
                (_normalize_path(f["index"]), _normalize_path(f["path"]), _normalize_path(f["watched"]) if f["watched"] else None)
                for f in record["folders"]
            ],
            code=record["code"],
            commit=record["git"]["commit"],
            engine_changes=engine_version.describe_engine_changes(record),
        )

    @property
    def first_output(self) -> Path:
        """The output by which faults of the whole job are named."""
        return next(iter(self.outputs))


def _describe_difference(recorded: CodeDigest, program: str, checkout: Checkout) -> str:
    """What a checkout has otherwise than recorded, empty for nothing."""
    if not recorded:
        return f"{program} is not a program of workflow/scripts"
    if not (checkout.workflow / "scripts" / program).is_file():
        return f"scripts/{program} (gone)"
    base = checkout.workflow
    modules = [m for m in recorded["modules"] if "/" not in m]
    # Those imported by name at run time are not found from the program, so all are asked for: one more changes nothing.
    present_modules = [
        m for m in modules if any((base / f"{m.replace('.', '/')}{end}").is_file() for end in (".py", "/__init__.py"))
    ]
    try:
        current_code = checkout.code_digest(program, *present_modules)
    except (OSError, KeyError, SyntaxError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    if current_code["sha256"] == recorded["sha256"]:
        return ""
    differences = code_digest.describe_code_changes(recorded, current_code) or ["its digest is not that of its modules"]
    return ", ".join(differences[:5]) + (f" and {len(differences) - 5} more" if len(differences) > 5 else "")


def _read_sources(checkout: Checkout) -> dict[str, bytes]:
    """Bytes of every file that a digest of this checkout may read."""
    source_paths = (p for p in files.list_files(checkout.workflow) if "__pycache__" not in p.parts)
    return {
        "lock": checkout.lock.read_bytes(),
        **{p.relative_to(checkout.workflow).as_posix(): p.read_bytes() for p in source_paths},
    }


class _CommitCheckouts:
    """Code of commits, each extracted once into a temporary folder; where it is that of a checkout, this checkout."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder
        self._checkouts: dict[str, Checkout | None] = {}

    def __call__(self, commit: str) -> Checkout | None:
        """Code as a commit holds it; None where this clone does not have it."""
        if commit not in self._checkouts:
            self._checkouts[commit] = self._extract_commit(commit)
        return self._checkouts[commit]

    def _extract_commit(self, commit: str) -> Checkout | None:
        if not re.fullmatch(r"HEAD|[0-9a-f]{40,64}", commit):
            return None
        folder = self.checkout.workflow.parent
        archived = None
        if git.owns_checkout(folder):
            archived = git.run_git(folder, "archive", "--format=tar", commit, "workflow", "requirements.lock")
        if archived is None:
            return None
        target_folder = self.folder / commit
        with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
            for member in archive:  # not extractall, whose safe filter Python has from 3.11.4 on
                path = target_folder / member.name
                if member.isfile() and path.resolve().is_relative_to(target_folder.resolve()):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]
        extracted = Checkout(target_folder / "workflow", target_folder / "requirements.lock")
        return (
            self.checkout if _read_sources(extracted) == _read_sources(self.checkout) else extracted
        )  # which spares parsing all of it twice


class _Auditor:
    """One audit; `faults` grows with each step."""

    def __init__(self, results: Path, cache: Path | None) -> None:
        self.results, self.cache = results, cache
        self.faults: list[dict[str, str]] = []
        self.jobs: dict[str, _RecordedJob] = {}
        """By seal."""
        self.recorded_hashes: dict[Path, str] = {}
        """Recorded hash of every output and every file listed in an index."""
        self.external_hashes: dict[Path, str] = {}
        """Recorded hash of inputs that are the user's."""
        self.unreadable_entries: list[Path] = []
        """Records and files of the cache that this user may not read."""
        self.artifact_count = self.listed_count = 0
        self.unverifiable_paths: set[Path] = set()
        """Files and folders of which what should speak is damaged, which is one fault and not one for each of them."""
        self.tracked_files = [Path(folder, name) for folder, name in self._walk_results()]

    def add_fault(self, kind: str, path: Path, detail: str) -> None:
        self.faults.append({"kind": kind, "path": path.as_posix(), "detail": detail})

    def _walk_results(self) -> Iterator[tuple[str, str]]:
        for folder, inner, names in os.walk(self.results, onerror=self._add_unreadable):
            inner[:] = sorted(d for d in inner if self._is_tracked(folder, d))
            yield from ((folder, name) for name in sorted(names) if self._is_tracked(folder, name))

    def _add_unreadable(self, error: OSError) -> None:
        self.add_fault("unreadable", Path(error.filename), f"what is in it is not known: {error.strerror}")

    def _is_tracked(self, folder: str, name: str) -> bool:
        path = Path(folder, name)
        return path != self.cache and not (path.parent == self.results and name in UNTRACKED_NAMES)

    def check_sidecars(self) -> None:
        """Read every sidecar; what it tells counts for the file beside it."""
        jobs_by_file: dict[Path, _RecordedJob] = {}
        for path in (p for p in self.tracked_files if p.name.endswith(files.SIDECAR_SUFFIX)):
            subject = job_record.subject_path(path)
            try:
                job = _RecordedJob.from_record(job_record.read_record(path))
            except RecordVersionError as error:
                self._add_damaged_sidecar(path, f"{error.problem}: run snakemake again", "other version")
                continue
            except (SidecarError, OSError) as error:
                self._add_damaged_sidecar(path, str(error).removeprefix(f"{path}: "))
                continue
            if subject not in job.outputs:
                self._add_damaged_sidecar(
                    path, f"speaks of {', '.join(map(str, job.outputs)) or 'nothing'}, not of {subject.name}"
                )
                continue
            jobs_by_file[subject] = self.jobs[job.seal] = job
            self.recorded_hashes[subject] = job.outputs[subject]
        self.artifact_count = len(self.recorded_hashes)
        for job in self.jobs.values():
            for output in job.outputs.keys() - self.unverifiable_paths:
                if output not in jobs_by_file:
                    self.unverifiable_paths.add(output)
                    if output.exists():
                        self.add_fault("no provenance", output, "its sidecar is gone")
                    else:
                        self.add_fault("missing", output, f"was made with {job.first_output} and is gone, and so is its sidecar")
                elif jobs_by_file[output].seal != job.seal:
                    self._add_damaged_sidecar(
                        job_record.sidecar_path(output), f"is of another job than that of {job.first_output}"
                    )
        if not self.jobs and not self.faults:
            self.add_fault("missing", self.results, "is no run: there is no sidecar in it")

    def _add_damaged_sidecar(self, sidecar: Path, detail: str, kind: str = "damaged sidecar") -> None:
        subject = job_record.subject_path(sidecar)
        self.unverifiable_paths |= {subject, *([subject.parent] if subject.name == files.INDEX_NAME else [])}
        self.add_fault(kind, sidecar, detail)

    def check_indexes(self) -> None:
        """Take up the files that indexes list."""
        folders_by_index = {
            index: (folder, watched)
            for job in self.jobs.values()
            for index, folder, watched in job.folders
            if index in self.recorded_hashes
        }
        actual_hashes = hash_files(folders_by_index)
        for index, (folder, watched) in folders_by_index.items():
            if actual_hashes[index] != self.recorded_hashes[index]:
                self.unverifiable_paths.add(folder)  # an altered index tells nothing
                continue
            try:  # not by medmim.tables.table_io or read_table: to import pandas takes as long as to hash thousands of files
                with pq.ParquetFile(index) as file:
                    table = file.read(columns=["path", "sha256"])
                paths = [folder / path for path in table["path"].to_pylist()]
            except (pa.ArrowException, KeyError, TypeError) as error:
                self.unverifiable_paths.add(folder)
                self.add_fault("altered", index, f"is not an index of files: {error}")
                continue
            self.listed_count += len(paths)
            self.recorded_hashes.update(zip(paths, table["sha256"].to_pylist(), strict=True))
            if watched is not None:
                self._check_watched(watched, folder)
            elif not folder.is_relative_to(self.results):
                self._add_orphans(path for path in files.list_files(folder) if not path.is_relative_to(self.results))

    def _check_watched(self, table: Path, folder: Path) -> None:
        """Files that were looked for in a folder and absent, and that are there now."""
        try:
            with pq.ParquetFile(table) as file:
                rows = file.read(columns=["path", "kind"])
        except (pa.ArrowException, OSError):  # said where its bytes are checked
            return
        absent_paths = [folder / row["path"] for row in rows.to_pylist() if row["kind"] == watched_paths.ABSENT]
        self._add_orphans(path for path in absent_paths if path.is_file())

    def check_links(self) -> None:
        """Each input of each job against the record of what made it."""
        for job in self.jobs.values():
            for path, read_hash in job.inputs:
                recorded_hash = self.recorded_hashes.get(path)
                if recorded_hash is not None and recorded_hash != read_hash:
                    self.add_fault("broken link", path, f"{job.first_output} was made from other bytes of it")
                elif recorded_hash is None and not path.is_relative_to(self.results):
                    if self.external_hashes.setdefault(path, read_hash) != read_hash:
                        self.add_fault(
                            "broken link", path, f"{job.first_output} was made from other bytes of it than other files"
                        )
                elif recorded_hash is None and path not in self.unverifiable_paths:
                    self.add_fault("no provenance", path, f"{job.first_output} was made from it, but nothing says what made it")

    def check_hashes(self) -> None:
        """Every file's bytes as they are now, the cache's among them."""
        entries, blobs = self._read_cache_entries()
        actual_hashes = hash_files(chain(self.recorded_hashes, self.external_hashes, blobs))
        for description, recorded in (
            ("was made by this run", self.recorded_hashes),
            ("was read by this run", self.external_hashes),
        ):
            for path, expected in recorded.items():
                actual_hash = actual_hashes[path]
                if isinstance(actual_hash, FileNotFoundError | NotADirectoryError):
                    self.add_fault("missing", path, f"{description} and is gone")
                elif isinstance(actual_hash, OSError):
                    self.add_fault("missing", path, f"can't be read: {actual_hash.strerror}")
                elif actual_hash != expected:
                    self.add_fault("altered", path, f"sha256 is {actual_hash[:12]}…, its provenance says {expected[:12]}…")
        for blob in blobs:
            actual_hash = actual_hashes[blob]
            if isinstance(actual_hash, FileNotFoundError):
                continue  # trimmed meanwhile
            if isinstance(actual_hash, OSError):
                self.unreadable_entries.append(blob)
            elif actual_hash != blob.name:
                self.add_fault("damaged cache entry", blob, f"sha256 is {actual_hash[:12]}…, its name says {blob.name[:12]}…")
        if self.unreadable_entries:
            first, count = self.unreadable_entries[0], len(self.unreadable_entries)
            log.warning("%s: can't be read, and so is not checked; %d such files of the cache", first, count)
        present_blobs = {blob for blob in blobs if not isinstance(actual_hashes[blob], FileNotFoundError)}
        for path, needed_blobs in entries.items():
            if (missing_blobs := sorted(needed_blobs - present_blobs)) and path.exists():
                self.add_fault(
                    "damaged cache entry",
                    path,
                    f"{missing_blobs[0]} is gone" + (f", {len(missing_blobs)} such" if len(missing_blobs) > 1 else ""),
                )

    def _read_cache_entries(self) -> tuple[dict[Path, set[Path]], list[Path]]:
        """Records of the cache with the files they need, and the files there are."""
        if self.cache is None:
            return {}, []
        blobs = self.cache / "blobs"
        entries = {}
        unread_count = 0
        for path in Cache(self.cache, 0).list_entries():
            try:
                stored_outputs = read_entry(path)["outputs"]
                entries[path] = {blobs / sha[:2] / sha for paths in stored_outputs.values() for sha in paths.values()}
            except FileNotFoundError:
                continue  # trimmed just now
            except RecordVersionError:  # of another checkout that shares the cache: no fault of this run
                unread_count += 1
            except OSError:  # another user's, who has kept it to himself: it may be whole
                self.unreadable_entries.append(path)
            except (SidecarError, TypeError) as error:
                self.add_fault("damaged cache entry", path, str(error).removeprefix(f"{path}: "))
        if unread_count:
            log.warning("%s: %d entries of another format version are not checked", self.cache, unread_count)
        return entries, sorted(p for p in blobs.glob("*/*") if not p.name.startswith("."))  # with a point: being written

    def check_orphans(self) -> None:
        """Files of the run that nothing speaks of."""
        self._add_orphans(p for p in self.tracked_files if not p.name.endswith(files.SIDECAR_SUFFIX))

    def _add_orphans(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path not in self.recorded_hashes and not self.unverifiable_paths & {path, *path.parents}:
                self.add_fault("orphaned", path, "no sidecar speaks of it")

    def check_code(self, checkout: Checkout) -> None:
        """The code behind each job against this checkout and against its commit."""
        with TemporaryDirectory() as folder:
            commits = _CommitCheckouts(checkout, Path(folder))
            head = commits("HEAD")
            if head is None:
                problem = (
                    "is not in a git repository of its own" if shutil.which("git") else "can't be looked at: git is not installed"
                )
                self.add_fault("uncommitted code", self.results, f"can't be ruled out: the workflow here {problem}")
            known_differences: dict[tuple[str, str | None, str, str | None], tuple[str, str]] = {}
            for job in self.jobs.values():
                code_key = job.program, job.code.get("sha256"), job.commit, job.engine_changes
                if code_key not in known_differences:
                    committed = commits(job.commit) or head
                    where = job.commit[:12] if commits(job.commit) else f"{job.commit[:12] or 'no commit'} is not here, but HEAD"
                    other = _describe_difference(job.code, job.program, committed) if committed else ""
                    known_differences[code_key] = (
                        job.engine_changes or _describe_difference(job.code, job.program, checkout),
                        other and f"{where} has other code: {other}",
                    )
                checkout_difference, commit_difference = known_differences[code_key]
                if checkout_difference:
                    self.add_fault(
                        "other code", job.first_output, f"made by {job.program} with code that is not here: {checkout_difference}"
                    )
                if commit_difference:
                    self.add_fault("uncommitted code", job.first_output, commit_difference)


def audit_run(
    results: Path, expected: Iterable[Path] = (), cache: Path | None = None, checkout: Checkout | None = None
) -> dict[str, Any]:
    """Check the run below `results`, and a cache; paths in its sidecars are relative to the present folder.

    `expected` has to be among what was made; `checkout` (this one, if not given) is the code to compare with.
    Returns {"artifacts", "files", "faults": [{"kind", "path", "detail"}]}: how many outputs and files listed by indexes
    were checked, and what was found.
    """
    auditor = _Auditor(_normalize_path(results), cache and _normalize_path(cache))
    auditor.check_sidecars()
    auditor.check_indexes()
    auditor.check_links()
    auditor.check_hashes()
    auditor.check_orphans()
    for path in map(_normalize_path, expected):
        if path not in auditor.recorded_hashes and path not in auditor.unverifiable_paths:
            auditor.add_fault("missing", path, "was not made: run the workflow first")
    auditor.check_code(checkout or Checkout(code_digest.WORKFLOW, code_digest.LOCK_FILE))
    return {"artifacts": auditor.artifact_count, "files": auditor.listed_count, "faults": auditor.faults}

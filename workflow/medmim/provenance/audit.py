"""Audit of a run: every file is hashed again, every sidecar's seal, every link and all code behind the results are checked.

Kinds of fault, each with the path it is about:

    altered               a file's bytes are not those recorded
    missing               a file that was made, listed, read or expected is not there
    broken link           a job read other bytes of a file than its producer's sidecar records
    no provenance         a file of the run was read or made, and no sidecar beside it says by what
    orphaned              a file that no sidecar and no index speaks of
    damaged sidecar       a sidecar is not as it was written, or not that of the file beside it
    damaged cache entry   a record or file of the cache is not as it was written, or gone
    other code            the code that made a file is not this checkout's
    uncommitted code      the code that made a file is not what its recorded commit holds
"""

import errno
import hashlib
import io
import os
import re
import stat
import subprocess
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

from medmim.common import files
from medmim.common.errors import SidecarError
from medmim.provenance import code_digest, job_record
from medmim.provenance.cache import Cache
from medmim.provenance.code_digest import Checkout, Code

UNTRACKED = (
    "logs",
    "checkpoints",
    "replies",
    "audit.json",
    "costs.html",
    "costs.parquet",
    ".stamps.json",
    "ro-crate-metadata.json",
    "ro-crate",
)
"""Names at the top of a run's folder that are not artifacts."""
PART = 1 << 18
"""Bytes read at a time."""
BATCH_FILES, BATCH_BYTES = 64, 1 << 24
"""What a thread takes at once: a task for each small file would cost more than hashing it."""

Hash = str | OSError
"""Hex sha256 of a file, or why it can't be read."""


def _place(path: Path | str) -> Path:
    """One spelling of a path: below the present folder relative to it, absolute elsewhere; links are not followed."""
    return Path(os.path.abspath(path).removeprefix(f"{Path.cwd()}{os.sep}"))  # noqa: PTH100


def _sha256(path: Path, size: int, tell: Callable[[int], None]) -> Hash:
    found = hashlib.sha256()
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            while part := os.read(file, min(size + 1, PART)):
                found.update(part)
                tell(len(part))
        finally:
            os.close(file)
    except OSError as error:
        return error
    return found.hexdigest()


def _stats(paths: list[Path]) -> list[os.stat_result | OSError]:
    def one(path: Path) -> os.stat_result | OSError:
        try:
            found = path.stat()
        except OSError as error:
            return error
        return found if stat.S_ISREG(found.st_mode) else OSError(errno.EINVAL, "is not a file")

    return [one(path) for path in paths]


def _batches(sizes: dict[Path, int]) -> Iterator[list[Path]]:
    """Files to hash in one go, the largest first, so that no thread is left with one at the end."""
    batch: list[Path] = []
    held = 0
    for path in sorted(sizes, key=lambda p: -sizes[p]):
        batch.append(path)
        held += sizes[path]
        if len(batch) == BATCH_FILES or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


@contextmanager
def _bar(total: int, count: int) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Two functions to call with bytes and with files hashed; on a terminal they move a progress bar."""
    if not sys.stderr.isatty():
        yield lambda _: None, lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("audit"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[done]}/{task.fields[count]} files")
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("audit", total=total, done=0, count=count)

        def tell_files(done: int) -> None:
            progress.update(task, done=progress.tasks[0].fields["done"] + done)

        yield lambda read: progress.advance(task, read), tell_files


def hashes(paths: Iterable[Path]) -> dict[Path, Hash]:
    """sha256 of every file, on all cores (hashlib frees the interpreter's lock); a file of several names is read once."""
    wanted = list(dict.fromkeys(paths))
    found: dict[Path, Hash] = {}
    names: dict[tuple[int, int], list[Path]] = {}
    sizes: dict[Path, int] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [wanted[i : i + BATCH_FILES] for i in range(0, len(wanted), BATCH_FILES)]
        for path, told in zip(wanted, chain.from_iterable(pool.map(_stats, parts)), strict=True):
            if isinstance(told, OSError):
                found[path] = told
                continue
            same = names.setdefault((told.st_dev, told.st_ino), [])
            same.append(path)
            sizes[same[0]] = told.st_size
        batches = list(_batches(sizes))
        with _bar(sum(sizes.values()), len(sizes)) as (tell_bytes, tell_files):
            for batch, hashed in zip(
                batches, pool.map(lambda batch: [_sha256(p, sizes[p], tell_bytes) for p in batch], batches), strict=True
            ):
                found.update(zip(batch, hashed, strict=True))
                tell_files(len(batch))
    return found | {path: found[same[0]] for same in names.values() for path in same}


@dataclass(frozen=True)
class _Job:
    """What a sidecar tells of the job that made a file; paths as `_place` spells them."""

    program: str
    seal: str
    inputs: list[tuple[Path, str]]
    outputs: dict[Path, str]
    folders: list[tuple[Path, Path]]
    """Index and folder."""
    code: Code
    commit: str

    @classmethod
    def of(cls, record: job_record.Record) -> "_Job":
        return cls(
            program=record["program"],
            seal=record["seal"],
            inputs=[(_place(e["path"]), e["sha256"]) for e in job_record.inputs(record)],
            outputs={_place(e["path"]): e["sha256"] for e in job_record.outputs(record)},
            folders=[(_place(f["index"]), _place(f["path"])) for f in record["folders"]],
            code=record["code"],
            commit=record["git"]["commit"],
        )

    @property
    def name(self) -> Path:
        """The output by which faults of the whole job are named."""
        return next(iter(self.outputs))


def _differs(recorded: Code, program: str, checkout: Checkout) -> str:
    """What a checkout has otherwise than recorded, empty for nothing."""
    if not recorded:
        return f"{program} is not a program of workflow/scripts"
    if not (checkout.workflow / "scripts" / program).is_file():
        return f"scripts/{program} (gone)"
    base = checkout.workflow
    modules = [m for m in recorded["modules"] if "/" not in m]
    # Those imported by name at run time are not found from the program, so all are asked for: one more changes nothing.
    there = [m for m in modules if any((base / f"{m.replace('.', '/')}{end}").is_file() for end in (".py", "/__init__.py"))]
    try:
        found = checkout.code(program, *there)
    except (OSError, KeyError, SyntaxError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    if found["sha256"] == recorded["sha256"]:
        return ""
    told = code_digest.changes(recorded, found) or ["its digest is not that of its modules"]
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")


def _source(checkout: Checkout) -> dict[str, bytes]:
    """Bytes of every file that a digest of this checkout may read."""
    found = (p for p in files.walk(checkout.workflow) if "__pycache__" not in p.parts)
    return {"lock": checkout.lock.read_bytes(), **{p.relative_to(checkout.workflow).as_posix(): p.read_bytes() for p in found}}


class _Commits:
    """Code of commits, each extracted once into a temporary folder; where it is that of a checkout, this checkout."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder
        self._known: dict[str, Checkout | None] = {}

    def __call__(self, commit: str) -> Checkout | None:
        """Code as a commit holds it; None where this clone does not have it."""
        if commit not in self._known:
            self._known[commit] = self._extract(commit)
        return self._known[commit]

    def _extract(self, commit: str) -> Checkout | None:
        if not re.fullmatch(r"HEAD|[0-9a-f]{40,64}", commit):
            return None
        try:
            done = subprocess.run(
                [
                    "git",
                    "-C",
                    str(self.checkout.workflow.parent),
                    "archive",
                    "--format=tar",
                    commit,
                    "workflow",
                    "requirements.lock",
                ],
                capture_output=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        place = self.folder / commit
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(place, filter="data")
        found = Checkout(place / "workflow", place / "requirements.lock")
        return self.checkout if _source(found) == _source(self.checkout) else found  # which spares parsing all of it twice


class _Audit:
    """One audit; `faults` grows with each step."""

    def __init__(self, results: Path, cache: Path | None) -> None:
        self.results, self.cache = results, cache
        self.faults: list[dict[str, str]] = []
        self.jobs: dict[str, _Job] = {}
        """By seal."""
        self.made: dict[Path, str] = {}
        """Recorded hash of every output and every file listed in an index."""
        self.outside: dict[Path, str] = {}
        """Recorded hash of inputs that are the user's."""
        self.artifacts = self.listed = 0
        self.unsure: set[Path] = set()
        """Files and folders of which what should speak is damaged, which is one fault and not one for each of them."""
        self.below = [Path(folder, name) for folder, name in self._walk()]

    def fault(self, kind: str, path: Path, detail: str) -> None:
        self.faults.append({"kind": kind, "path": path.as_posix(), "detail": detail})

    def _walk(self) -> Iterator[tuple[str, str]]:
        for folder, inner, names in os.walk(self.results):
            inner[:] = sorted(d for d in inner if self._tracked(folder, d))
            yield from ((folder, name) for name in sorted(names) if self._tracked(folder, name))

    def _tracked(self, folder: str, name: str) -> bool:
        path = Path(folder, name)
        return path != self.cache and not (path.parent == self.results and name in UNTRACKED)

    def sidecars(self) -> None:
        """Read every sidecar; what it tells counts for the file beside it."""
        told: dict[Path, _Job] = {}
        for path in (p for p in self.below if p.name.endswith(files.SIDECAR)):
            subject = job_record.subject(path)
            try:
                job = _Job.of(job_record.read(path))
            except (SidecarError, OSError) as error:
                self._damaged(path, str(error).removeprefix(f"{path}: "))
                continue
            except (KeyError, TypeError, AttributeError) as error:
                self._damaged(path, f"is not a job's record: {type(error).__name__}: {error}")
                continue
            if subject not in job.outputs:
                self._damaged(path, f"speaks of {', '.join(map(str, job.outputs)) or 'nothing'}, not of {subject.name}")
                continue
            told[subject] = self.jobs[job.seal] = job
            self.made[subject] = job.outputs[subject]
        self.artifacts = len(self.made)
        for job in self.jobs.values():
            for output in job.outputs.keys() - self.unsure:
                if output not in told:
                    self.unsure.add(output)
                    if output.exists():
                        self.fault("no provenance", output, "its sidecar is gone")
                    else:
                        self.fault("missing", output, f"was made with {job.name} and is gone, and so is its sidecar")
                elif told[output].seal != job.seal:
                    self._damaged(job_record.sidecar(output), f"is of another job than that of {job.name}")
        if not self.jobs and not self.faults:
            self.fault("missing", self.results, "is no run: there is no sidecar in it")

    def _damaged(self, sidecar: Path, detail: str) -> None:
        subject = job_record.subject(sidecar)
        self.unsure |= {subject, *([subject.parent] if subject.name == files.INDEX else [])}
        self.fault("damaged sidecar", sidecar, detail)

    def indexes(self) -> None:
        """Take up the files that indexes list."""
        wanted = {index: (folder, job) for job in self.jobs.values() for index, folder in job.folders if index in self.made}
        actual = hashes(wanted)
        for index, (folder, _) in wanted.items():
            if actual[index] != self.made[index]:
                self.unsure.add(folder)  # an altered index tells nothing
                continue
            try:  # not by medmim.tables.table_io or read_table: to import pandas takes as long as to hash thousands of files
                with pq.ParquetFile(index) as file:
                    table = file.read(columns=["path", "sha256"])
                paths = [folder / path for path in table["path"].to_pylist()]
            except (pa.ArrowException, KeyError, TypeError) as error:
                self.unsure.add(folder)
                self.fault("altered", index, f"is not an index of files: {error}")
                continue
            self.listed += len(paths)
            self.made.update(zip(paths, table["sha256"].to_pylist(), strict=True))
            if not folder.is_relative_to(self.results):
                self._orphans(path for path in files.walk(folder) if not path.is_relative_to(self.results))

    def links(self) -> None:
        """Each input of each job against the record of what made it."""
        for job in self.jobs.values():
            for path, read in job.inputs:
                producer = self.made.get(path)
                if producer is not None and producer != read:
                    self.fault("broken link", path, f"{job.name} was made from other bytes of it")
                elif producer is None and not path.is_relative_to(self.results):
                    if self.outside.setdefault(path, read) != read:
                        self.fault("broken link", path, f"{job.name} was made from other bytes of it than other files")
                elif producer is None and path not in self.unsure:
                    self.fault("no provenance", path, f"{job.name} was made from it, but nothing says what made it")

    def bytes(self) -> None:
        """Every file's bytes as they are now, the cache's among them."""
        entries, blobs = self._entries()
        actual = hashes(chain(self.made, self.outside, blobs))
        for what, recorded in (("was made by this run", self.made), ("was read by this run", self.outside)):
            for path, expected in recorded.items():
                found = actual[path]
                if isinstance(found, FileNotFoundError | NotADirectoryError):
                    self.fault("missing", path, f"{what} and is gone")
                elif isinstance(found, OSError):
                    self.fault("missing", path, f"can't be read: {found.strerror}")
                elif found != expected:
                    self.fault("altered", path, f"sha256 is {found[:12]}…, its provenance says {expected[:12]}…")
        for blob in blobs:
            found = actual[blob]
            if isinstance(found, FileNotFoundError):
                continue  # trimmed meanwhile
            if found != blob.name:
                self.fault("damaged cache entry", blob, f"sha256 is {str(found)[:12]}…, its name says {blob.name[:12]}…")
        present = {blob for blob in blobs if not isinstance(actual[blob], FileNotFoundError)}
        for path, needed in entries.items():
            if (gone := sorted(needed - present)) and path.exists():
                self.fault("damaged cache entry", path, f"{gone[0]} is gone" + (f", {len(gone)} such" if len(gone) > 1 else ""))

    def _entries(self) -> tuple[dict[Path, set[Path]], list[Path]]:
        """Records of the cache with the files they need, and the files there are."""
        if self.cache is None:
            return {}, []
        blobs = self.cache / "blobs"
        entries = {}
        for path in Cache(self.cache, 0).entries():
            try:
                entry = job_record.read(path)
                if entry["key"] != path.stem:
                    raise SidecarError(f"is that of {entry['key']}")
                entries[path] = {blobs / sha[:2] / sha for paths in entry["outputs"].values() for sha in paths.values()}
            except FileNotFoundError:
                continue  # trimmed just now
            except (SidecarError, OSError, KeyError, TypeError, AttributeError) as error:
                self.fault("damaged cache entry", path, str(error).removeprefix(f"{path}: "))
        return entries, sorted(p for p in blobs.glob("*/*") if not p.name.startswith("."))  # with a point: being written

    def orphans(self) -> None:
        """Files of the run that nothing speaks of."""
        self._orphans(p for p in self.below if not p.name.endswith(files.SIDECAR))

    def _orphans(self, found: Iterable[Path]) -> None:
        for path in found:
            if path not in self.made and not self.unsure & {path, *path.parents}:
                self.fault("orphaned", path, "no sidecar speaks of it")

    def code(self, checkout: Checkout) -> None:
        """The code behind each job against this checkout and against its commit."""
        with TemporaryDirectory() as folder:
            commits = _Commits(checkout, Path(folder))
            head = commits("HEAD")
            if head is None:
                self.fault("uncommitted code", self.results, "can't be ruled out: the workflow here is not in a git repository")
            known: dict[tuple[str, str | None, str], tuple[str, str]] = {}
            for job in self.jobs.values():
                subject = job.program, job.code.get("sha256"), job.commit
                if subject not in known:
                    committed = commits(job.commit) or head
                    where = job.commit[:12] if commits(job.commit) else f"{job.commit[:12] or 'no commit'} is not here, but HEAD"
                    other = _differs(job.code, job.program, committed) if committed else ""
                    known[subject] = _differs(job.code, job.program, checkout), other and f"{where} has other code: {other}"
                now, then = known[subject]
                if now:
                    self.fault("other code", job.name, f"made by {job.program} with code that is not here: {now}")
                if then:
                    self.fault("uncommitted code", job.name, then)


def audit(
    results: Path, expected: Iterable[Path] = (), cache: Path | None = None, checkout: Checkout | None = None
) -> dict[str, Any]:
    """Check the run below `results`, and a cache; paths in its sidecars are relative to the present folder.

    `expected` has to be among what was made; `checkout` (this one, if not given) is the code to compare with.
    Returns {"artifacts", "files", "faults": [{"kind", "path", "detail"}]}: how many outputs and files listed by indexes
    were checked, and what was found.
    """
    found = _Audit(_place(results), cache and _place(cache))
    found.sidecars()
    found.indexes()
    found.links()
    found.bytes()
    found.orphans()
    for path in map(_place, expected):
        if path not in found.made and path not in found.unsure:
            found.fault("missing", path, "was not made: run the workflow first")
    found.code(checkout or Checkout(code_digest.WORKFLOW, code_digest.LOCK))
    return {"artifacts": found.artifacts, "files": found.listed, "faults": found.faults}

"""Outputs of jobs by what they depend on: a job whose key was seen before takes its outputs from here.

    blobs/<2 hex>/<sha256>      a file's bytes, once, hard-linked to and from the runs that hold it (copied across devices)
    jobs/<2 hex>/<key>.json     a sealed record: format_version, key, the job's own record, the files of each of its outputs

Every file appears whole by a rename and nothing is trusted on reading, so any number of jobs and users may share a cache:
what another one trims or damages is a miss. Bytes are hashed before use; an entry that does not fit is dropped, and one that
this user may not read is left.
"""

import hashlib
import json
import logging
import os
import platform
import shlex
import shutil
import stat
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.errors import RecordVersionError, SidecarError, UserError
from medmim.common.user_paths import expand_path
from medmim.provenance import engine_version, job_record, outputs

log = logging.getLogger("medmim")
FOLDER_VARIABLE, LIMIT_VARIABLE = "MEDMIM_CACHE", "MEDMIM_CACHE_LIMIT"
"""Environment variables that bring the settings to jobs: the folder (empty: no cache), and its limit in bytes."""
ENTRY_VERSION = 1
"""Version of the format of an entry's record: to be raised with any change of its fields or their meaning."""
IGNORED_OPTIONS = ("--cfg", "--code", "--log", "--threads")
"""Options of programs that say where or how fast, or that a record holds apart."""


def find_folder(configured: str | None) -> str:
    """The cache's folder: that of the environment, else the configured one; empty for no cache. Raises UserError."""
    folder = os.environ.get(FOLDER_VARIABLE, configured or "")
    try:
        return expand_path(folder) if folder else ""
    except ValueError as error:
        raise UserError(f"{FOLDER_VARIABLE}: {error}") from None


def result_arguments(argv: Sequence[str]) -> list[str]:
    """Arguments of a program without those that change no result."""
    arguments: list[str] = []
    skip = False
    for word in argv:
        if skip or word.split("=")[0] in IGNORED_OPTIONS:
            skip = not skip and "=" not in word
        else:
            arguments.append(word)
    return arguments


def parse_options(command: Sequence[str]) -> dict[str, list[str]]:
    """Arguments by option, named as a record names them."""
    values_by_option: dict[str, list[str]] = {}
    values: list[str] = []
    for word in command:
        if word.startswith("--"):
            name, has_value, value = word.removeprefix("--").partition("=")
            values_by_option[name.replace("-", "_")] = values = [value] if has_value else []
        else:
            values.append(word)
    return values_by_option


def match_inputs(word: str, inputs: Iterable[str]) -> list[str]:
    """Return the inputs that an argument stands for: the path itself, or those that a pattern matches, sorted."""
    pattern = Path(word)
    inputs = list(inputs)
    if pattern.as_posix() in inputs:
        return [pattern.as_posix()]
    same_folder = [p for p in map(Path, inputs) if p.parent == pattern.parent] if "*" in pattern.name else []
    return sorted(p.as_posix() for p in same_folder if fnmatch(p.name, pattern.name))


def job_key(
    program: str, command: Sequence[str], cfg: Any, code: str, inputs: Mapping[str, str], output_paths: Collection[str]
) -> str:
    """Hex digest of all that a job's outputs depend on.

    That is the engine's and Python's version, content and names of its inputs, other arguments but paths, cfg, and code.

    `command` as from `command`; `inputs` by path; `places` of its outputs. A word with * stands for the inputs it matches.
    """

    def describe_word(word: str) -> Any:
        path = Path(word).as_posix()
        if path in output_paths:
            return ["output", Path(path).name == files.INDEX_NAME]
        if matched := match_inputs(word, inputs):
            return ["input", *([Path(p).name, inputs[p]] for p in matched)]
        return "a path" if "/" in word else word

    described_options = {option: [describe_word(word) for word in words] for option, words in parse_options(command).items()}
    parts = [engine_version.ENGINE_VERSION, engine_version.PYTHON_VERSION, program, described_options, cfg, code]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CacheEntry:
    """What a job left: its record, and for each output its files by path below the output ("" for a single file)."""

    record: dict[str, Any]
    outputs: dict[str, dict[str, str]]


def read_entry(path: Path) -> dict[str, Any]:
    """Read the sealed record of an entry: {"format_version", "key", "record", "outputs", "seal"}.

    Raises FileNotFoundError, SidecarError where any byte is not as it was written or the entry is of another key, and
    RecordVersionError where it is of another version of the format, or lacks a field.
    """
    entry = job_record.read_sealed_record(path)
    job_record.check_format_version(path, entry, ENTRY_VERSION)
    if entry.get("key") != path.stem:
        raise SidecarError(f"{path}: is the record of another job: {entry.get('key')}")
    job_record.check_fields(path, entry.get("record"))
    outputs_by_option = entry.get("outputs")
    if not isinstance(outputs_by_option, dict) or not all(isinstance(paths, dict) for paths in outputs_by_option.values()):
        raise RecordVersionError(path, "lacks outputs: another version of this workflow wrote it")
    return entry


def find_device(path: Path) -> int:
    """Number of the file system that holds a path, which need not be there yet."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists()).stat().st_dev


def _link_or_copy(source: Path, target: Path) -> None:
    """Give `source` a second name, or a copy where the file system refuses one; whole, replacing what stood there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex}")
    try:
        try:
            os.link(source.resolve(), temporary)
        except OSError:  # another device, another owner, too many links, a file system without links
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _adopt_group(path: Path) -> None:
    """Give a file the group of its folder, if that is for new files to have: a link keeps the group of the place it came from."""
    folder = path.parent.stat()
    if folder.st_mode & stat.S_ISGID and path.stat().st_gid != folder.st_gid:
        with suppress(PermissionError):  # another user's file, or this user is not in the group
            os.chown(path, -1, folder.st_gid)


def _delete_file(path: Path) -> bool:
    """Whether a file could be deleted: in another user's folder one may not."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


class Cache:
    """A cache folder; made when first written to. `limit` in bytes bounds the files kept."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._has_unreadable = False

    @classmethod
    def from_environment(cls) -> "Cache | None":
        """The cache that the environment names, if any. Raises UserError for a limit that is no number."""
        folder, limit = find_folder(None), os.environ.get(LIMIT_VARIABLE) or str(1 << 62)
        if not limit.isdecimal() or int(limit) == 0:
            raise UserError(f"environment variable {LIMIT_VARIABLE}: is {limit!r}; allowed: whole number of bytes from 1")
        return cls(Path(folder), int(limit)) if folder else None

    def must_copy(self, folder: Path) -> bool:
        """Whether files of a folder take their space a second time here, as those of another file system do."""
        return find_device(self.folder) != find_device(folder)

    def _blob_path(self, sha256: str) -> Path:
        return self.folder / "blobs" / sha256[:2] / sha256

    def _entry_path(self, key: str) -> Path:
        return self.folder / "jobs" / key[:2] / f"{key}.json"

    def get(self, key: str) -> CacheEntry | None:
        """The entry of a key, every byte of it checked, or None. A damaged one is dropped and named in the log."""
        path = self._entry_path(key)
        try:
            sealed_record = read_entry(path)
        except FileNotFoundError:
            return None
        except RecordVersionError as error:  # another checkout that shares the cache may still read it
            log.warning("cache: %s: %s; computing again", path, error.problem)
            return None
        except OSError as error:
            self._report_unreadable(error)
            return None
        except SidecarError as error:
            self._drop_entry(path, str(error))
            return None
        blob_hashes = {sha for paths in sealed_record["outputs"].values() for sha in paths.values()}
        try:
            damaged_blobs = self.find_damaged(blob_hashes)
        except OSError as error:
            self._report_unreadable(error)
            return None
        if damaged_blobs:
            self._drop_entry(path, f"{damaged_blobs[0]}: is not what its name says, or gone", *damaged_blobs)
            return None
        with suppress(OSError):  # a cache that one may only read
            os.utime(path)  # what was used last is trimmed last
        return CacheEntry(sealed_record["record"], sealed_record["outputs"])

    def find_damaged(self, blobs: Iterable[str]) -> list[Path]:
        """Those of the files, by sha256, that are absent or whose bytes have another hash.

        Raises OSError where one can't be read, which says nothing of its bytes.
        """

        def is_damaged(sha256: str) -> bool:
            try:
                return files.hash_file(self._blob_path(sha256)) != sha256
            except FileNotFoundError:
                return True

        ordered = sorted(blobs)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [self._blob_path(sha) for sha, bad in zip(ordered, pool.map(is_damaged, ordered), strict=True) if bad]

    def _report_unreadable(self, error: OSError) -> None:
        """Say once what can't be read, as another user's files, and what helps; it may be whole, and stays."""
        if not self._has_unreadable:
            remedy = f"; its owner can mend that: chmod -R a+rX {shlex.quote(str(self.folder))}"
            log.warning(
                "cache: %s: %s%s. Computing anew what is not readable",
                error.filename,
                error.strerror,
                remedy if isinstance(error, PermissionError) else "",
            )
        self._has_unreadable = True

    def _drop_entry(self, path: Path, reason: str, *blobs: Path) -> None:
        with suppress(OSError):  # a cache that one may only read
            for stale_path in (path, *blobs):
                stale_path.unlink(missing_ok=True)
        log.warning("cache: dropped a damaged entry, computing again: %s", reason)

    def restore_output(self, paths: dict[str, str], place: Path) -> None:
        """Put one output of an entry at `place`, which must not exist. Raises OSError where a file went away meanwhile."""
        for path, sha256 in paths.items():
            if ".." in Path(path).parts or Path(path).is_absolute():  # another user may have written the record
                raise PermissionError(f"{path} would be written outside {place}")
            _link_or_copy(self._blob_path(sha256), place / path if path else place)

    def restore_entry(
        self, entry: CacheEntry, output_paths: Mapping[str, Path], run_fields: Mapping[str, Any]
    ) -> job_record.Record:
        """Put all outputs of an entry, by option, in their places; `own` is what the new record says of this run.

        Raises OSError where a file of the entry went away meanwhile; then nothing was put.
        """
        attempt = outputs.Attempt(output_paths)
        try:
            for name, temporary_path in attempt.temporary_paths.items():
                self.restore_output(entry.outputs[name], temporary_path)
            restored = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "host": platform.node()}
            return attempt.publish(
                lambda written, folders: {
                    **entry.record,
                    **run_fields,
                    "outputs": written,
                    "folders": folders,
                    "restored": restored,
                }
            )
        finally:
            attempt.clean_up()

    def put(self, key: str, record: dict[str, Any], outputs: dict[str, dict[str, tuple[Path, str]]]) -> None:
        """Keep a job's outputs: for each output name, path below it -> (file, its sha256). Too large ones are not kept."""
        blobs = {sha: path for paths in outputs.values() for path, sha in paths.values()}
        if sum(path.stat().st_size for path in blobs.values()) > self.limit:
            return
        for sha256, path in blobs.items():
            blob = self._blob_path(sha256)
            is_there = blob.exists() and os.access(blob, os.R_OK)  # else another user's, and put anew for all
            if not is_there or blob.stat().st_size != path.stat().st_size:
                _link_or_copy(path, blob)
                _adopt_group(blob)
        stored_outputs = {name: {path: sha256 for path, (_, sha256) in paths.items()} for name, paths in outputs.items()}
        entry = {"format_version": ENTRY_VERSION, "key": key, "record": record, "outputs": stored_outputs}
        job_record.write_record(self._entry_path(key), entry)
        self.trim()

    def list_entries(self) -> list[Path]:
        """The records of all jobs kept."""
        return sorted(self.folder.glob("jobs/*/*.json"))

    def trim(self) -> None:
        """Delete what was used longest ago until the files kept are within the limit."""
        sizes: dict[Path, int] = {}
        for path in self.folder.glob("blobs/*/*"):
            with suppress(FileNotFoundError):  # trimmed by another
                sizes[path] = path.stat().st_size
        total = sum(sizes.values())
        if total <= self.limit:
            return
        jobs = []
        all_read = True
        for path in self.list_entries():
            try:
                outputs = json.loads(path.read_bytes())["outputs"]
                blobs = {self._blob_path(sha256) for paths in outputs.values() for sha256 in paths.values()}
                jobs.append((path.stat().st_mtime_ns, path, blobs))
            except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):  # trimmed, or damaged: `get` says so
                continue
            except OSError:  # another user's, and so may any file be that no other entry holds
                all_read = False
        holders = Counter(blob for *_, blobs in jobs for blob in blobs)
        # Files of entries gone, or of one just being written, which will miss them.
        total -= sum(sizes[blob] for blob in sizes.keys() - holders.keys() if all_read and _delete_file(blob))
        for _, path, blobs in sorted(jobs, key=lambda job: job[:2]):
            if total <= self.limit:
                break
            if _delete_file(path):
                holders.subtract(blobs)
                total -= sum(sizes[blob] for blob in blobs if holders[blob] == 0 and blob in sizes and _delete_file(blob))

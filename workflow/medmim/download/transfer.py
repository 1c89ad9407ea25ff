"""One file from a server to its place: whole or not at all, resumed where it stopped, checked against what its owner states."""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event

from medmim.common import files, outside_files
from medmim.common.errors import UserError
from medmim.download.errors import AccessDeniedError, TransientError

log = logging.getLogger("medmim")
T = TypeVar("T")
CHUNK_BYTES = 1 << 20
RESERVED_DISK_BYTES = 1 << 28
"""Bytes of the disk that downloads leave free."""
MAX_PAUSE_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 3600.0
"""A server that asks to wait longer is asked again after these."""


@dataclass(frozen=True)
class Checksum:
    """A hash that the owner states, in hex."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


@dataclass
class FileResponse:
    """What a server sends: bytes from `start` on, of `total` if it says; `validator` changes when the file does."""

    chunks: Iterator[bytes]
    start: int
    total: int | None
    validator: str
    checksum: Checksum | None


class FileOpener(Protocol):
    """Asks for a file from a byte on, if it is still that of the validator."""

    def __call__(self, start: int, validator: str) -> AbstractContextManager[FileResponse]:
        """The answer, as long as the context lasts."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at its owner's. `path`: where it goes, below the source's folder; `origin`: its URL, without secrets."""

    path: str
    origin: str
    open: FileOpener
    size: int | None = None
    checksum: Checksum | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try; not at all once `stop_event` is set."""

    retries: int = 8
    pause: float = 1.0
    stop_event: threading.Event = field(default_factory=threading.Event)

    def make_retrying(self, count_fruitless: Callable[[], int]) -> Retrying:
        """Attempts until one raises nothing, or `count_fruitless` of them in a row are too many."""

        def compute_wait(state: RetryCallState) -> float:
            fault = state.outcome.exception() if state.outcome else None
            retry_after = fault.retry_after if isinstance(fault, TransientError) else None
            return (
                min(MAX_PAUSE_SECONDS, self.pause * 2.0 ** (max(count_fruitless(), 1) - 1))
                if retry_after is None
                else min(MAX_RETRY_AFTER_SECONDS, retry_after)
            )

        def log_retry(state: RetryCallState) -> None:
            pause = state.next_action.sleep if state.next_action else 0
            log.info("%s; trying again in %.0f s", state.outcome.exception() if state.outcome else "", pause)

        return Retrying(
            stop=lambda state: self.stop_event.is_set() or count_fruitless() >= self.retries,
            sleep=sleep_using_event(self.stop_event),
            wait=compute_wait,
            retry=retry_if_exception_type(TransientError),
            before_sleep=log_retry,
            reraise=True,
        )

    def call(self, request: Callable[[], T]) -> T:
        """What `request` gives, tried again while its faults are passing ones. Raises the last of these."""
        count = 0

        def call_once() -> T:
            nonlocal count
            count += 1
            return request()

        return self.make_retrying(lambda: count)(call_once)


class PartialFile:
    """A file while it is being fetched, with the hashes of what is there; it outlives the process."""

    def __init__(self, root: Path, path: str) -> None:
        name = hashlib.sha256(path.encode()).hexdigest()[:32]
        self.file = root / files.DOWNLOAD_FOLDER / f"{name}.part"
        self._note_path = root / files.DOWNLOAD_FOLDER / f"{name}.json"
        self.validator = ""
        self.total: int | None = None
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(self._note_path.read_text(encoding="utf-8"))
            self.validator, self.total = str(note["validator"]), note["total"]
        self.size = self.file.stat().st_size if self.file.is_file() and self._note_path.is_file() else 0
        self._hashes: dict[str, Any] = {}
        self._hashed_bytes = -1

    def begin(self, response: FileResponse, algorithms: set[str]) -> None:
        """Take over what an answer says of the file; what is there is dropped where the answer does not go on from it."""
        if response.start != self.size or (self.size and (response.validator, response.total) != (self.validator, self.total)):
            if response.start:
                self.drop()
                raise TransientError("the file changed at its owner's while it was fetched")
            self.file.unlink(missing_ok=True)  # before the note says that it is of the new file
            self.size, self._hashed_bytes = 0, -1
        self.validator, self.total = response.validator, response.total
        with files.write_atomically(self._note_path) as temporary:
            temporary.write_text(json.dumps({"validator": self.validator, "total": self.total}), encoding="utf-8")
        if self._hashed_bytes != self.size or self._hashes.keys() != algorithms:
            self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in sorted(algorithms)}
            self._hash_existing()

    def _hash_existing(self) -> None:
        if self.size:
            with self.file.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    for hasher in self._hashes.values():
                        hasher.update(chunk)
        self._hashed_bytes = self.size

    def write(self, chunks: Iterator[bytes], on_bytes: Callable[[int], None]) -> None:
        """Append what comes. Raises what `chunks` raises; what came before stays."""
        with self.file.open("r+b" if self.size else "wb") as file:
            file.truncate(self.size)
            file.seek(self.size)
            for chunk in chunks:
                file.write(chunk)
                for hasher in self._hashes.values():
                    hasher.update(chunk)
                self.size += len(chunk)
                self._hashed_bytes = self.size
                on_bytes(len(chunk))

    def digest(self, algorithm: str) -> str:
        """Hex digest of what is there."""
        hex_digest: str = self._hashes[algorithm].hexdigest()
        return hex_digest

    def move_to(self, target: Path) -> None:
        """Move the file, which is whole, to its place."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.file.replace(target)
        self._note_path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Delete what is there."""
        self.file.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)
        self.size, self._hashed_bytes, self.validator, self.total = 0, -1, "", None


def require_disk_space(folder: Path, needed_bytes: int) -> None:
    """Raise UserError where the disk of a folder has not that many bytes to give."""
    free_bytes = shutil.disk_usage(folder).free - RESERVED_DISK_BYTES
    if needed_bytes > free_bytes:
        raise UserError(
            f"{folder}: {needed_bytes / 1e9:.1f} GB are to come and {max(free_bytes, 0) / 1e9:.1f} GB are free: make room, "
            "or set the"
            " source's path to another disk"
        )


def fetch_file(
    root: Path, remote: RemoteFile, retry_policy: RetryPolicy, on_bytes: Callable[[int], None] = lambda count: None
) -> tuple[str, Checksum | None]:
    """Bring one file to its place below `root`; `on_bytes` hears of bytes as they come, and of those to be fetched again as
    negative.

    Returns its sha256 and the owner's checksum that it was found to have, if any. Raises NotFoundError, AccessDeniedError,
    UnreachableError, and TransientError or UserError where all attempts are used up; what was fetched so far is kept for the
    next run.
    """
    partial_file = PartialFile(root, remote.path)
    fruitless_count = 0
    if partial_file.size:
        on_bytes(partial_file.size)

    def fetch_attempt() -> Checksum | None:
        nonlocal fruitless_count
        size_before = partial_file.size
        fruitless_count += 1
        try:
            return _fetch_once(root, remote, partial_file, on_bytes)
        finally:
            if partial_file.size > size_before:
                fruitless_count = 0

    verified_checksum = retry_policy.make_retrying(lambda: fruitless_count)(fetch_attempt)
    sha256 = partial_file.digest("sha256")
    partial_file.move_to(root / remote.path)
    return sha256, verified_checksum


def _fetch_once(root: Path, remote: RemoteFile, partial_file: PartialFile, on_bytes: Callable[[int], None]) -> Checksum | None:
    size_before = partial_file.size
    can_detect_change = (
        partial_file.validator or partial_file.total is not None or remote.checksum
    )  # that a changed file will be noticed
    with remote.open(size_before if can_detect_change else 0, partial_file.validator) as response:
        checksum = remote.checksum or response.checksum
        partial_file.begin(response, {"sha256", checksum.algorithm} if checksum else {"sha256"})
        if partial_file.size < size_before:
            on_bytes(partial_file.size - size_before)
        if partial_file.total is not None:
            require_disk_space(root, partial_file.total - partial_file.size)
        partial_file.write(response.chunks, on_bytes)
    if substitute := describe_page(partial_file.file, remote.path):  # before its size: to try again would not help
        on_bytes(-partial_file.size)
        partial_file.drop()
        raise AccessDeniedError(
            f"{remote.origin}: the server sent {substitute}. It was not kept; look at it in a browser, and check your credentials"
        )
    expected_size = remote.size if remote.size is not None else partial_file.total
    if expected_size is not None and partial_file.size < expected_size:
        raise TransientError(f"{remote.origin}: the connection was cut after {partial_file.size} of {expected_size} bytes")
    if expected_size is not None and partial_file.size > expected_size:
        mismatch = f"has {partial_file.size} bytes, its owner states {expected_size}"
    elif checksum and partial_file.digest(checksum.algorithm) != checksum.digest:
        mismatch = f"has {checksum.algorithm} {partial_file.digest(checksum.algorithm)}, its owner states {checksum.digest}"
    else:
        return checksum
    on_bytes(-partial_file.size)
    partial_file.drop()
    raise TransientError(f"{remote.origin}: {mismatch}")


def describe_page(path: Path, name: str) -> str:
    """What stands in place of a file by its content, such as a page to log in, empty where nothing does; `name` is the file's."""
    if PurePosixPath(name).suffix.lower() in (".html", ".htm") or not path.is_file():
        return ""
    return outside_files.describe_substitute(outside_files.read_head(path))


def hash_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()

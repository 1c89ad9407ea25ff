"""One file from a server to its place: whole or not at all, resumed where it stopped, checked against what its owner states."""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event

from medmim.common import files
from medmim.common.errors import UserError
from medmim.download.errors import Passing

log = logging.getLogger("medmim")
T = TypeVar("T")
CHUNK = 1 << 20
MARGIN = 1 << 28
"""Bytes of the disk that downloads leave free."""
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Checksum:
    """A hash that the owner states, in hex."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


@dataclass
class Answer:
    """What a server sends: bytes from `start` on, of `total` if it says; `validator` changes when the file does."""

    chunks: Iterator[bytes]
    start: int
    total: int | None
    validator: str
    checksum: Checksum | None


class Open(Protocol):
    """Asks for a file from a byte on, if it is still that of the validator."""

    def __call__(self, start: int, validator: str) -> AbstractContextManager[Answer]:
        """The answer, as long as the context lasts."""


@dataclass(frozen=True)
class Remote:
    """A file at its owner's. `path`: where it goes, below the source's folder; `origin`: its URL, without secrets."""

    path: str
    origin: str
    open: Open
    size: int | None = None
    checksum: Checksum | None = None


@dataclass(frozen=True)
class Patience:
    """How often and how long to try; not at all once `over` is set."""

    retries: int = 8
    pause: float = 1.0
    over: threading.Event = field(default_factory=threading.Event)

    def attempts(self, fruitless: Callable[[], int]) -> Retrying:
        """Attempts until one raises nothing, or `fruitless` of them in a row are too many."""

        def wait(state: RetryCallState) -> float:
            fault = state.outcome.exception() if state.outcome else None
            asked = fault.wait if isinstance(fault, Passing) else None
            return min(LONGEST_PAUSE, self.pause * 2.0 ** (max(fruitless(), 1) - 1)) if asked is None else asked

        def tell(state: RetryCallState) -> None:
            pause = state.next_action.sleep if state.next_action else 0
            log.info("%s; trying again in %.0f s", state.outcome.exception() if state.outcome else "", pause)

        return Retrying(
            stop=lambda state: self.over.is_set() or fruitless() >= self.retries,
            sleep=sleep_using_event(self.over),
            wait=wait,
            retry=retry_if_exception_type(Passing),
            before_sleep=tell,
            reraise=True,
        )

    def call(self, ask: Callable[[], T]) -> T:
        """What `ask` gives, tried again while its faults are passing ones. Raises the last of these."""
        count = 0

        def once() -> T:
            nonlocal count
            count += 1
            return ask()

        return self.attempts(lambda: count)(once)


class Partial:
    """A file while it is being fetched, with the hashes of what is there; it outlives the process."""

    def __init__(self, root: Path, path: str) -> None:
        name = hashlib.sha256(path.encode()).hexdigest()[:32]
        self.file = root / files.ASIDE / f"{name}.part"
        self._note = root / files.ASIDE / f"{name}.json"
        self.validator = ""
        self.total: int | None = None
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError, ValueError, KeyError):
            told = json.loads(self._note.read_text())
            self.validator, self.total = str(told["validator"]), told["total"]
        self.size = self.file.stat().st_size if self.file.is_file() and self._note.is_file() else 0
        self._hashes: dict[str, Any] = {}
        self._hashed = -1

    def begin(self, answer: Answer, algorithms: set[str]) -> None:
        """Take over what an answer says of the file; what is there is dropped where the answer does not go on from it."""
        if answer.start != self.size or (self.size and (answer.validator, answer.total) != (self.validator, self.total)):
            if answer.start:
                self.drop()
                raise Passing("the file changed at its owner's while it was fetched")
            self.file.unlink(missing_ok=True)  # before the note says that it is of the new file
            self.size, self._hashed = 0, -1
        self.validator, self.total = answer.validator, answer.total
        with files.whole(self._note) as temporary:
            temporary.write_text(json.dumps({"validator": self.validator, "total": self.total}))
        if self._hashed != self.size or self._hashes.keys() != algorithms:
            self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in sorted(algorithms)}
            self._hash_what_is_there()

    def _hash_what_is_there(self) -> None:
        if self.size:
            with self.file.open("rb") as file:
                while chunk := file.read(CHUNK):
                    for found in self._hashes.values():
                        found.update(chunk)
        self._hashed = self.size

    def write(self, chunks: Iterator[bytes], tell: Callable[[int], None]) -> None:
        """Append what comes. Raises what `chunks` raises; what came before stays."""
        with self.file.open("r+b" if self.size else "wb") as file:
            file.truncate(self.size)
            file.seek(self.size)
            for chunk in chunks:
                file.write(chunk)
                for found in self._hashes.values():
                    found.update(chunk)
                self.size += len(chunk)
                self._hashed = self.size
                tell(len(chunk))

    def digest(self, algorithm: str) -> str:
        """Hex digest of what is there."""
        found: str = self._hashes[algorithm].hexdigest()
        return found

    def put(self, place: Path) -> None:
        """Move the file, which is whole, to its place."""
        place.parent.mkdir(parents=True, exist_ok=True)
        self.file.replace(place)
        self._note.unlink(missing_ok=True)

    def drop(self) -> None:
        """Delete what is there."""
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.size, self._hashed, self.validator, self.total = 0, -1, "", None


def room(folder: Path, wanted: int) -> None:
    """Raise UserError where the disk of a folder has not that many bytes to give."""
    free = shutil.disk_usage(folder).free - MARGIN
    if wanted > free:
        raise UserError(
            f"{folder}: {wanted / 1e9:.1f} GB are to come and {max(free, 0) / 1e9:.1f} GB are free: make room, or set the"
            " source's path to another disk"
        )


def fetch(
    root: Path, remote: Remote, patience: Patience, tell: Callable[[int], None] = lambda count: None
) -> tuple[str, Checksum | None]:
    """Bring one file to its place below `root`; `tell` hears of bytes as they come, and of those to be fetched again as negative.

    Returns its sha256 and the owner's checksum that it was found to have, if any. Raises Missing, Refused, Unreachable, and
    Passing or UserError where all attempts are used up; what was fetched so far is kept for the next run.
    """
    partial = Partial(root, remote.path)
    fruitless = 0
    if partial.size:
        tell(partial.size)

    def attempt() -> Checksum | None:
        nonlocal fruitless
        before = partial.size
        fruitless += 1
        try:
            return _attempt(root, remote, partial, tell)
        finally:
            if partial.size > before:
                fruitless = 0

    checked = patience.attempts(lambda: fruitless)(attempt)
    sha256 = partial.digest("sha256")
    partial.put(root / remote.path)
    return sha256, checked


def _attempt(root: Path, remote: Remote, partial: Partial, tell: Callable[[int], None]) -> Checksum | None:
    had = partial.size
    sure = partial.validator or partial.total is not None or remote.checksum  # that a changed file will be noticed
    with remote.open(had if sure else 0, partial.validator) as answer:
        stated = remote.checksum or answer.checksum
        partial.begin(answer, {"sha256", stated.algorithm} if stated else {"sha256"})
        if partial.size < had:
            tell(partial.size - had)
        if partial.total is not None:
            room(root, partial.total - partial.size)
        partial.write(answer.chunks, tell)
    expected = remote.size if remote.size is not None else partial.total
    if expected is not None and partial.size < expected:
        raise Passing(f"{remote.origin}: the connection was cut after {partial.size} of {expected} bytes")
    if expected is not None and partial.size > expected:
        wrong = f"has {partial.size} bytes, its owner states {expected}"
    elif stated and partial.digest(stated.algorithm) != stated.digest:
        wrong = f"has {stated.algorithm} {partial.digest(stated.algorithm)}, its owner states {stated.digest}"
    else:
        return stated
    tell(-partial.size)
    partial.drop()
    raise Passing(f"{remote.origin}: {wrong}")


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()

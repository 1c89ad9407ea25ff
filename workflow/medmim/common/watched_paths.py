"""Paths of a folder that is another's, as a program looks at them: recorded, so that a change of any is noticed, and of no other.

A program looks by `stamp_path` and `list_matches`, and notes what it reads with `note_read`; inside `record_paths` they are
remembered. What it looked at can be looked at again by `digest_paths`, without knowing the program.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from stat import S_ISDIR

from medmim.common.errors import ABSENCE_ERRORS, UserError

ABSENT = "absent"
FOLDER = "folder"
"""States of a path that is no file; a folder is one whatever is in it."""
FILE = "file"
PATTERN = "pattern"
"""Kinds of a watched table's rows, beside these."""
BATCH_PATHS = 1024
"""Paths that a thread looks at in one go."""


@dataclass
class PathRecorder:
    """What was looked at below a folder."""

    root: Path
    stamps: dict[str, str] = field(default_factory=dict)
    """State of each path when it was first looked at, as `stamp_path` gives it."""
    matches: dict[str, list[str]] = field(default_factory=dict)
    """What each glob pattern matched when it was first looked for, sorted."""
    read_paths: set[str] = field(default_factory=set)
    """Paths whose content was read."""

    def compute_digest(self) -> str:
        """Digest of all that was recorded; `digest_paths` gives the same as long as nothing has changed."""
        return _digest_states(self.stamps, self.matches)

    def list_rows(self) -> list[dict[str, object]]:
        """Rows of the `watched` table, sorted."""
        kinds = {name: FILE if is_file_stamp(stamp) else stamp for name, stamp in self.stamps.items()}
        rows: list[dict[str, object]] = [{"path": name, "kind": kind} for name, kind in sorted(kinds.items())]
        return rows + [{"path": name, "kind": PATTERN} for name in sorted(self.matches)]


_recorder: ContextVar[PathRecorder | None] = ContextVar("recorder", default=None)


@contextmanager
def record_paths(root: Path) -> Iterator[PathRecorder]:
    """Record what this thread looks at below a folder."""
    recorder = PathRecorder(root)
    token = _recorder.set(recorder)
    try:
        yield recorder
    finally:
        _recorder.reset(token)


def stamp_path(path: Path) -> str:
    """State of a path: of a file its size, times and inode, else FOLDER or ABSENT. Raises OSError where it can't be known."""
    recorder = _recorder.get()
    name = "" if recorder is None else path.relative_to(recorder.root).as_posix()
    if recorder is None or name not in recorder.stamps:
        stamp = _read_stamp(path)
        if recorder is None:
            return stamp
        recorder.stamps[name] = stamp
    return recorder.stamps[name]


def _read_stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        if error.errno in ABSENCE_ERRORS:
            return ABSENT
        raise
    # The time of the inode's last change is one that no program can set back.
    return FOLDER if S_ISDIR(stat.st_mode) else f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def is_file_stamp(stamp: str) -> bool:
    """Whether a state is that of a file."""
    return stamp not in (ABSENT, FOLDER)


def note_read(path: Path) -> None:
    """Note that a file's content is about to be read."""
    if (recorder := _recorder.get()) is not None:
        stamp_path(path)
        recorder.read_paths.add(path.relative_to(recorder.root).as_posix())


def list_matches(folder: Path, pattern: str) -> list[Path]:
    """Paths below a folder that a glob pattern matches, sorted; a pattern that ends in / matches folders only.

    Raises UserError for a name that no table can hold.
    """
    matches = sorted(folder.glob(pattern))
    for path in matches:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            name = os.fsencode(path.name)
            raise UserError(f"{path.parent}: the name {name!r} is not UTF-8: rename it, as by convmv") from None
    if (recorder := _recorder.get()) is not None:
        whole_pattern = (folder.relative_to(recorder.root) / pattern).as_posix() + "/" * pattern.endswith("/")
        recorder.matches.setdefault(whole_pattern, [p.relative_to(recorder.root).as_posix() for p in matches])
    return matches


def digest_paths(root: Path, paths: Iterable[str], patterns: Iterable[str]) -> str:
    """Digest of the states of paths below a folder, and of what patterns match there. Raises OSError, UserError."""
    names = list(paths)
    batches = [names[i : i + BATCH_PATHS] for i in range(0, len(names), BATCH_PATHS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a network's answers are waited for together
        stamps = chain.from_iterable(pool.map(lambda batch: [_read_stamp(root / name) for name in batch], batches))
        states = dict(zip(names, stamps, strict=True))
    matches = {p: [path.relative_to(root).as_posix() for path in list_matches(root, p)] for p in patterns}
    return _digest_states(states, matches)


def _digest_states(stamps: Mapping[str, str], matches: Mapping[str, list[str]]) -> str:
    hasher = hashlib.sha256()
    for name, stamp in sorted(stamps.items()):
        hasher.update(f"{name}\0{stamp}\n".encode())
    for pattern, names in sorted(matches.items()):
        hasher.update("\0".join(("", pattern, *names, "\n")).encode())
    return hasher.hexdigest()

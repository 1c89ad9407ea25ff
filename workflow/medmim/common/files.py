"""Hashing, whole-or-nothing writes, and the index of a folder's files."""

import glob
import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from stat import S_IMODE

from medmim.common.errors import UserError
from medmim.common.outside_files import translate_read_errors

SIDECAR_SUFFIX = ".prov.json"
INDEX_NAME = "files.parquet"
DOWNLOAD_FOLDER = ".download"
"""Folder at the top of a downloaded source: what is not whole yet, and what is known of what is."""
UMASK = os.umask(0o077)
"""The user's umask, read once: to read it is to set it, for all threads."""
os.umask(UMASK)


def is_inside_folder(path: str) -> bool:
    """Whether a relative path, as archives, servers and tables of others name it, stays below the folder it is joined to."""
    parts = PurePosixPath(path)
    return bool(parts.parts) and not (
        parts.is_absolute() or ".." in parts.parts or "\\" in path or ":" in path or not path.isprintable()
    )


def hash_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def file_record(path: Path) -> dict[str, object]:
    """Path, size and sha256 of one file, for a sidecar."""
    return {"path": path.as_posix(), "bytes": path.stat().st_size, "sha256": hash_file(path)}


def temporary_path(path: Path) -> Path:
    """Where a file or folder is written until it is whole: beside its place, one name per process."""
    return path.with_name(f".{path.name}.partial-{platform.node()}-{os.getpid()}")


def remove_temporaries(path: Path) -> None:
    """Delete what other runs left unfinished of a file or folder; one that is still at work finds nothing to put in place.

    Also what was being written to be put in such an unfinished place: it has a dot more.
    """
    for dots in (".", ".."):
        for leftover in path.parent.glob(f"{dots}{glob.escape(path.name)}.partial-*"):
            remove_path(leftover)


def remove_path(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def apply_umask(path: Path) -> None:
    """Give a file, or a folder and all below it, the permissions that new ones have: some libraries write for the user alone."""
    paths = [path, *(Path(folder, name) for folder, folders, names in os.walk(path) for name in (*folders, *names))]
    for item in paths:
        stat = item.lstat()
        mode = (0o777 if item.is_dir() else 0o666) & ~UMASK
        if not item.is_symlink() and stat.st_mode | mode != stat.st_mode:
            with suppress(PermissionError):  # a link from the cache to another user's file
                item.chmod(S_IMODE(stat.st_mode) | mode)


def replace_path(temporary: Path, path: Path) -> None:
    """Move a whole file or folder to its place, replacing what stood there; whoever the umask lets may read it."""
    apply_umask(temporary)
    if temporary.is_dir():
        remove_path(path)
    temporary.replace(path)
    remove_path(temporary)  # still there where both were names of one file, as those from the cache are


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` on success, delete it on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        replace_path(temporary, path)
    finally:
        remove_path(temporary)


def list_files(root: Path) -> list[Path]:
    """All files under `root`, linked folders followed, sorted by path; our indexes, sidecars and unfinished files left out.

    Raises UserError where a folder may not be read, links to one that holds it, or has a name that is not UTF-8.
    """
    return sorted(p for p in _walk_folder(root, ()) if not _is_own_file(p.relative_to(root)))


def _walk_folder(folder: Path, parents: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Files under a folder; `parents` are device and inode of those that it was reached through."""
    with translate_read_errors(folder):
        try:
            stat = folder.stat()
            if (identity := (stat.st_dev, stat.st_ino)) in parents:
                raise UserError(f"{folder} is a link to a folder that holds it, which would have no end: remove the link")
            with os.scandir(folder) as entries:
                for entry in entries:
                    _check_encoding(entry)
                    if entry.is_dir():
                        yield from _walk_folder(folder / entry.name, (*parents, identity))
                    elif entry.is_file():
                        yield folder / entry.name
        except FileNotFoundError:  # as for any folder that is not there: it holds no files
            return


def _check_encoding(entry: "os.DirEntry[str]") -> None:
    """Raise UserError for a name that no table can hold."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(entry.name)
        raise UserError(f"{Path(entry.path).parent}: the name {name!r} is not UTF-8: rename it, as by convmv") from None


def tree_digest(root: Path) -> str:
    """Hex digest of the names, sizes and times of all files under `root`: the same as long as nobody touched them.

    Among the times is that of the last change of each file's inode, which no program can set back.
    """
    hasher = hashlib.sha256()
    for path in list_files(root):
        stat = path.stat()
        name = path.relative_to(root).as_posix()
        hasher.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
    return hasher.hexdigest()


def _is_own_file(path: Path) -> bool:
    return (
        path.name == INDEX_NAME
        or path.name.endswith(SIDECAR_SUFFIX)
        or ".partial-" in path.as_posix()
        or path.parts[0] == DOWNLOAD_FOLDER
    )


def index_files(root: Path, known_sha256: Callable[[Path], str | None] = lambda path: None) -> list[dict[str, object]]:
    """Rows of the `files` table for every file under `root`; those whose sha256 `known_sha256` has need not be read.

    Raises FileNotFoundError where the folder is absent, ValueError where it holds no file, UserError where one can't be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    rows: list[dict[str, object]] = []
    for path in list_files(root):
        with translate_read_errors(path):
            record = {"bytes": path.stat().st_size, "sha256": known_sha256(path) or hash_file(path)}
        rows.append({"path": path.relative_to(root).as_posix(), **record})
    if not rows:
        raise ValueError(f"{root}: the folder holds no files")
    return rows

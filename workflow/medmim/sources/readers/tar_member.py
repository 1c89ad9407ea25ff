"""The bytes of a picture: a file below the source's folder, or one member of a tar there, read as a stream."""

import stat
import tarfile
from pathlib import Path, PurePosixPath

from medmim.common import outside_files
from medmim.common.errors import ABSENCE_ERRORS
from medmim.common.files import is_inside_folder

MAX_FILE_BYTES = 1 << 30  # bytes; no picture is larger, a bomb may be


def check_relative_path(name: str) -> str:
    """`name` if it is a relative path that stays below its folder. Raises ValueError."""
    if not is_inside_folder(name):
        raise ValueError(f"{name!r} is not a path below the source's folder")
    return name


def read_tar_member(tar: Path, name: str) -> bytes:
    """Bytes of one regular member of a tar, compressed or not, without unpacking the others.

    Raises FileNotFoundError, ValueError (unsafe name, link, no tar, cut off, too large), UserError (the system can't read it).
    """
    member_path = PurePosixPath(check_relative_path(name))
    with outside_files.translate_read_errors(tar):
        try:
            with tarfile.open(tar, "r|*") as archive:
                data = _find_member(archive, tar.name, member_path)
        except Exception as error:  # tarfile and the decompressors raise anything on broken archives
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"no file {tar.name}") from None
            if outside_files.is_read_error(error) or type(error) in (ValueError, MemoryError):
                raise
            raise ValueError(f"{tar.name} can't be read as a tar: {error}") from error
    if data is None:
        raise FileNotFoundError(f"no member {name} in {tar.name}")
    return data


def _find_member(archive: tarfile.TarFile, tar_name: str, member_path: PurePosixPath) -> bytes | None:
    """Bytes of a member, None where the archive has none of that path."""
    for entry in archive:
        if PurePosixPath(entry.name) != member_path:
            continue
        if not entry.isfile():
            raise ValueError(f"{member_path} in {tar_name} is a link or no regular file; refused")
        if entry.size > MAX_FILE_BYTES:
            raise ValueError(f"{member_path} in {tar_name} has {entry.size} bytes; at most {MAX_FILE_BYTES} are read")
        file = archive.extractfile(entry)
        assert file is not None
        data = file.read()
        if len(data) < entry.size:
            raise ValueError(f"{tar_name} is cut off inside {member_path}")
        return data
    return None


def read_source_bytes(root: Path, file: str) -> bytes:
    """Bytes of `file` below `root`, '<tar>!<member>' for a member of a tar.

    Raises FileNotFoundError and ValueError for what is wrong with the name or the archive, UserError for a read error.
    """
    tar, separator, name = file.partition("!")
    path = root / check_relative_path(tar)
    if separator:
        check_relative_path(name)
    with outside_files.translate_read_errors(path):
        try:
            status = path.stat()
        except OSError as error:
            if error.errno not in ABSENCE_ERRORS:
                raise
            raise FileNotFoundError(f"no file {path.name}" if separator else "no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("is a folder, expected a file")
    if not separator and status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"has {status.st_size} bytes; at most {MAX_FILE_BYTES} are read")
    return read_tar_member(path, name) if separator else outside_files.read_bytes(path)

"""The bytes of a picture: a file below the source's folder, or one member of a tar there, read as a stream."""

import tarfile
from pathlib import Path, PurePosixPath

from medmim.common.files import is_inside_folder

MAX_MEMBER_BYTES = 1 << 30  # bytes; no figure is larger, a bomb may be


def check_relative_path(name: str) -> str:
    """`name` if it is a relative path that stays below its folder. Raises ValueError."""
    if not is_inside_folder(name):
        raise ValueError(f"{name!r} is not a path below the source's folder")
    return name


def read_tar_member(tar: Path, name: str) -> bytes:
    """Bytes of one regular member of a tar, compressed or not, without unpacking the others.

    Raises FileNotFoundError, ValueError (unsafe name, link, no tar, cut off, too large).
    """
    member_path = PurePosixPath(check_relative_path(name))
    if not tar.is_file():
        raise FileNotFoundError(f"no file {tar.name}")
    try:
        with tarfile.open(tar, "r|*") as archive:
            for entry in archive:
                if PurePosixPath(entry.name) != member_path:
                    continue
                if not entry.isfile():
                    raise ValueError(f"{name} in {tar.name} is a link or no regular file; refused")
                if entry.size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{name} in {tar.name} has {entry.size} bytes; at most {MAX_MEMBER_BYTES} are read")
                file = archive.extractfile(entry)
                assert file is not None
                data = file.read()
                if len(data) < entry.size:
                    raise ValueError(f"{tar.name} is cut off inside {name}")
                return data
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{tar.name} can't be read as a tar: {error}") from error
    raise FileNotFoundError(f"no member {name} in {tar.name}")


def read_source_bytes(root: Path, file: str) -> bytes:
    """Bytes of `file` below `root`, '<tar>!<member>' for a member of a tar. Raises FileNotFoundError, ValueError."""
    tar, separator, name = file.partition("!")
    path = root / check_relative_path(tar)
    if separator:
        return read_tar_member(path, name)
    if not path.is_file():
        raise FileNotFoundError("no such file")
    return path.read_bytes()

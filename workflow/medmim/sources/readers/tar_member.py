"""The bytes of a picture: a file below the source's folder, or one member of a tar there, read as a stream."""

import tarfile
from pathlib import Path, PurePosixPath

LARGEST = 1 << 30  # bytes; no figure is larger, a bomb may be


def safe(name: str) -> str:
    """`name` if it is a relative path that stays below its folder. Raises ValueError."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name!r} is not a path below the source's folder")
    return name


def member(tar: Path, name: str) -> bytes:
    """Bytes of one regular member of a tar, compressed or not, without unpacking the others.

    Raises FileNotFoundError, ValueError (unsafe name, link, no tar, cut off, too large).
    """
    wanted = PurePosixPath(safe(name))
    if not tar.is_file():
        raise FileNotFoundError(f"no file {tar.name}")
    try:
        with tarfile.open(tar, "r|*") as stream:
            for entry in stream:
                if PurePosixPath(entry.name) != wanted:
                    continue
                if not entry.isfile():
                    raise ValueError(f"{name} in {tar.name} is a link or no regular file; refused")
                if entry.size > LARGEST:
                    raise ValueError(f"{name} in {tar.name} has {entry.size} bytes; at most {LARGEST} are read")
                file = stream.extractfile(entry)
                assert file is not None
                data = file.read()
                if len(data) < entry.size:
                    raise ValueError(f"{tar.name} is cut off inside {name}")
                return data
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{tar.name} can't be read as a tar: {error}") from error
    raise FileNotFoundError(f"no member {name} in {tar.name}")


def payload(root: Path, file: str) -> bytes:
    """Bytes of `file` below `root`, '<tar>!<member>' for a member of a tar. Raises FileNotFoundError, ValueError."""
    tar, inside, name = file.partition("!")
    path = root / safe(tar)
    if inside:
        return member(path, name)
    if not path.is_file():
        raise FileNotFoundError("no such file")
    return path.read_bytes()

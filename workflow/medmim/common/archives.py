"""Files out of archives of others, which may mean ill: nothing is written outside its folder, linked, or blown up.

What is wanted and leaves its folder, is a link or a device, or stands there twice is refused; what is not wanted is passed over.
"""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from medmim.common.errors import UserError

CHUNK = 1 << 20
RATIO = 200
"""Bytes out for a byte in that no honest archive of images or tables reaches; deflate makes a thousand of zeros."""
SMALL = 1 << 24
"""Bytes that may come out at any ratio."""
COMPRESSED: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open, b"BZh": bz2.open}
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)

Member = tuple[str, Callable[[], IO[bytes] | None] | None]
"""Name of an archive's member, and what opens it; None for a link or device."""


class Damaged(Exception):
    """No archive, or one that is cut off or broken."""


@contextmanager
def faults() -> Iterator[None]:
    """What libraries raise on reading a broken archive, as Damaged."""
    try:
        yield
    except BROKEN as error:
        raise Damaged(f"can't be extracted as zip or tar: {error}") from None


def inside(name: str) -> PurePosixPath:
    """A member's path, if it stays in the folder that it is extracted to. Raises UserError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable():
        raise UserError(f"member {name!r} would be written outside its folder")
    return path


class _Counted(io.RawIOBase):
    """A stream that knows how much was read of it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self.taken = read, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self.taken += len(data)
        return len(data)


class _Bounded:
    """What a stream expands to, within bounds."""

    def __init__(self, stream: Any, source: _Counted) -> None:
        self._stream, self._source, self._given = stream, source, 0

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._given += len(data)
        if self._given > max(SMALL, RATIO * self._source.taken):
            raise UserError(f"it expands to more than {RATIO} times its size: refused as a bomb")
        return data


def tar_members(read: Callable[[int], bytes]) -> Iterator[Member]:
    """Members of a tar, compressed or not, as it comes: each is to be read before the next is asked for. Raises Damaged."""
    source = _Counted(read)
    with faults():
        file = io.BufferedReader(source, CHUNK)
        start = file.peek(6)
        plain: Any = next((opened(file) for magic, opened in COMPRESSED.items() if start.startswith(magic)), file)
        with tarfile.open(fileobj=_Bounded(plain, source), mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                if not info.isdir():
                    regular = info.isreg() and not info.issparse()
                    yield info.name, partial(archive.extractfile, info) if regular else None


def members(archive: Path) -> Iterator[Member]:
    """Members of a zip or tar file. Raises Damaged."""
    with faults():
        if not zipfile.is_zipfile(archive):
            with archive.open("rb") as file:
                yield from tar_members(file.read)
            return
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if not info.is_dir():
                    regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                    yield info.orig_filename, partial(_of_zip, opened, info) if regular else None


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.file_size > max(SMALL, RATIO * info.compress_size):  # more than it states does not come out
        raise UserError(f"member {info.orig_filename!r} expands to more than {RATIO} times its size: refused as a bomb")
    return archive.open(info)


def chosen(found: Iterator[Member], want: Callable[[str], str | None]) -> Iterator[tuple[str, IO[bytes]]]:
    """Place and content of those members that `want` gives a place. Raises Damaged, and UserError for what is refused."""
    seen = set()
    for name, opened in found:
        if (place := want(name)) is None:
            continue
        inside(name)
        with faults():
            content = opened() if opened else None
        if content is None:
            raise UserError(f"member {name!r} is a link or a device, expected a file")
        if place in seen:
            raise UserError(f"member {name!r} stands in the archive twice")
        seen.add(place)
        with content:
            yield place, content


def chunks(content: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a member. Raises Damaged."""
    with faults():
        while chunk := content.read(CHUNK):
            yield chunk

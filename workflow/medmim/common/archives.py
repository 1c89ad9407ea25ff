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
from pathlib import Path
from typing import IO, Any

from medmim.common import files
from medmim.common.errors import UserError

CHUNK_BYTES = 1 << 20
MAX_EXPANSION_RATIO = 200
"""Bytes out for a byte in that no honest archive of images or tables reaches; deflate makes a thousand of zeros."""
UNCHECKED_BYTES = 1 << 24
"""Bytes that may come out at any ratio."""
DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open, b"BZh": bz2.open}
ARCHIVE_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)

Member = tuple[str, Callable[[], IO[bytes] | None] | None]
"""Name of an archive's member, and what opens it; None for a link or device."""


class DamagedArchiveError(Exception):
    """No archive, or one that is cut off or broken."""


@contextmanager
def translate_archive_errors() -> Iterator[None]:
    """What libraries raise on reading a broken archive, as DamagedArchiveError."""
    try:
        yield
    except ARCHIVE_ERRORS as error:
        raise DamagedArchiveError(f"can't be extracted as zip or tar: {error}") from None


class _CountingStream(io.RawIOBase):
    """A stream that knows how much was read of it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self.bytes_read = read, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self.bytes_read += len(data)
        return len(data)


class _BoundedStream:
    """What a stream expands to, within bounds."""

    def __init__(self, stream: Any, source: _CountingStream) -> None:
        self._stream, self._source, self._bytes_out = stream, source, 0

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._bytes_out += len(data)
        if self._bytes_out > max(UNCHECKED_BYTES, MAX_EXPANSION_RATIO * self._source.bytes_read):
            raise UserError(f"it expands to more than {MAX_EXPANSION_RATIO} times its size: refused as a bomb")
        return data


def iter_tar_members(read: Callable[[int], bytes]) -> Iterator[Member]:
    """Members of a tar, compressed or not, as it comes: read each before asking for the next. Raises DamagedArchiveError."""
    source = _CountingStream(read)
    with translate_archive_errors():
        file = io.BufferedReader(source, CHUNK_BYTES)
        start = file.peek(6)
        decompressed: Any = next((opened(file) for magic, opened in DECOMPRESSORS.items() if start.startswith(magic)), file)
        with tarfile.open(fileobj=_BoundedStream(decompressed, source), mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                if not info.isdir():
                    is_regular = info.isreg() and not info.issparse()
                    yield info.name, partial(archive.extractfile, info) if is_regular else None


def iter_members(archive_path: Path) -> Iterator[Member]:
    """Members of a zip or tar file. Raises DamagedArchiveError."""
    with translate_archive_errors():
        if not zipfile.is_zipfile(archive_path):
            with archive_path.open("rb") as file:
                yield from iter_tar_members(file.read)
            return
        with zipfile.ZipFile(archive_path) as zip_file:
            for info in zip_file.infolist():
                if not info.is_dir():
                    is_regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                    yield info.orig_filename, partial(_open_zip_member, zip_file, info) if is_regular else None


def _open_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.file_size > max(UNCHECKED_BYTES, MAX_EXPANSION_RATIO * info.compress_size):  # more than it states does not come out
        raise UserError(
            f"member {info.orig_filename!r} expands to more than {MAX_EXPANSION_RATIO} times its size: refused as a bomb"
        )
    return archive.open(info)


def select_members(
    archive_members: Iterator[Member], get_destination: Callable[[str], str | None]
) -> Iterator[tuple[str, IO[bytes]]]:
    """Destination and content of the members that `get_destination` gives one. Raises DamagedArchiveError, UserError."""
    seen_destinations = set()
    for name, open_member in archive_members:
        if (destination := get_destination(name)) is None:
            continue
        if not files.is_inside_folder(name):
            raise UserError(f"member {name!r} would be written outside its folder")
        with translate_archive_errors():
            content = open_member() if open_member else None
        if content is None:
            raise UserError(f"member {name!r} is a link or a device, expected a file")
        if destination in seen_destinations:
            raise UserError(f"member {name!r} stands in the archive twice")
        seen_destinations.add(destination)
        with content:
            yield destination, content


def iter_chunks(content: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a member. Raises DamagedArchiveError."""
    with translate_archive_errors():
        while chunk := content.read(CHUNK_BYTES):
            yield chunk

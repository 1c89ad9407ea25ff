"""Download of the release: an archive by a pinned URL and hash, and the safe extraction of its JSON files."""

import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import pooch
import requests

from medmim.job import UserError
from medmim.release.records import SUFFIX

MAX_BYTES = 2**30  # of the extracted files together; the whole release is about a tenth
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 2**20
Member = tuple[str, Callable[[], IO[bytes] | None] | None]
"""Name of an archive's member, and what opens it; None for a link or device."""


def download(url: str, sha256: str, folder: Path) -> Path:
    """Fetch an archive into a folder and check its hash. Raises UserError saying what the server or the hash said."""
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{url}: expected a URL that begins with https:// or http://")
    pooch.get_logger().setLevel("WARNING")
    loader = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=CHUNK)
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname="archive", path=folder, downloader=loader))
    except requests.RequestException as error:
        raise UserError(f"{url}: can't be downloaded: {error}") from None
    except ValueError as error:
        raise UserError(f"{url}: not the file that was pinned: {error}") from None


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir():
            link = stat.S_ISLNK(info.external_attr >> 16)
            yield info.orig_filename, None if link else partial(archive.open, info)


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for info in archive:
        if not info.isdir():
            yield info.name, partial(archive.extractfile, info) if info.isreg() else None


def _inside(name: str) -> PurePosixPath:
    """A member's path, if it stays in the folder that it is extracted to. Raises UserError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable():
        raise UserError(f"member {name!r} would be written outside its folder")
    return path


def extract(archive: Path, folder: Path) -> list[Path]:
    """Write the *.json files of a zip or tar archive (tar.gz, .bz2, .xz too) below a folder, at their paths in it.

    Hidden files (a Mac's `._name`) are left out. Raises UserError for another format, a damaged archive, one without
    JSON files, a JSON member that is a link or device, repeats a path or would leave the folder, and for more than
    MAX_BYTES; what was written by then is left to the caller.
    """
    written: list[Path] = []
    left = MAX_BYTES
    try:
        with ExitStack() as stack:
            if zipfile.is_zipfile(archive):
                members = _zip_members(stack.enter_context(zipfile.ZipFile(archive)))
            else:
                members = _tar_members(stack.enter_context(tarfile.open(archive)))
            for name, opened in members:
                path = PurePosixPath(name)
                if path.suffix != SUFFIX or path.name.startswith("._"):
                    continue
                if opened is None or (content := opened()) is None:
                    raise UserError(f"member {name!r} is a link or a device, expected a file")
                target = folder / _inside(name)
                if target.exists():
                    raise UserError(f"member {name!r} stands in the archive twice")
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("xb") as out:
                    while chunk := content.read(CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise UserError(f"its {SUFFIX} files are larger than {MAX_BYTES} bytes together")
                        out.write(chunk)
                written.append(target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise UserError(f"the archive can't be extracted as zip or tar: {error}") from None
    if not written:
        raise UserError(f"it holds no {SUFFIX} file")
    return written


def fetch(url: str, sha256: str, folder: Path) -> list[Path]:
    """Download an archive and extract its JSON files below a folder. Raises UserError naming the URL."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = download(url, sha256, Path(temporary))
        try:
            return extract(archive, folder)
        except UserError as error:
            raise UserError(f"{url}: {error}") from None

"""Download of the release: an archive by a pinned URL and hash, and the safe extraction of its JSON files."""

import tempfile
from pathlib import Path, PurePosixPath

import pooch
import requests

from medmim.benchmarks.released.records import SUFFIX
from medmim.common import archives
from medmim.common.errors import UserError

MAX_BYTES = 2**30  # of the extracted files together; the whole release is about a tenth
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 2**20


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


def _wanted(name: str) -> str | None:
    path = PurePosixPath(name)
    return name if path.suffix == SUFFIX and not path.name.startswith("._") else None


def extract(archive: Path, folder: Path) -> list[Path]:
    """Write the *.json files of a zip or tar archive (tar.gz, .bz2, .xz too) below a folder, at their paths in it.

    Hidden files (a Mac's `._name`) are left out. Raises UserError for another format, a damaged archive, one without
    JSON files, a JSON member that is a link or device, repeats a path or would leave the folder, and for more than
    MAX_BYTES; what was written by then is left to the caller.
    """
    written: list[Path] = []
    left = MAX_BYTES
    try:
        for name, content in archives.chosen(archives.members(archive), _wanted):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                for chunk in archives.chunks(content):
                    left -= len(chunk)
                    if left < 0:
                        raise UserError(f"its {SUFFIX} files are larger than {MAX_BYTES} bytes together")
                    out.write(chunk)
            written.append(target)
    except archives.Damaged as error:
        raise UserError(f"the archive {error}") from None
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

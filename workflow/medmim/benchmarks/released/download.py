"""Download of the release: an archive by a pinned URL and hash, and the safe extraction of its JSON files."""

import tempfile
from pathlib import Path, PurePosixPath

import pooch
import requests

from medmim.benchmarks.released.records import JSON_SUFFIX
from medmim.common import archives
from medmim.common.errors import UserError

MAX_BYTES = 2**30  # of the extracted files together; the whole release is about a tenth
TIMEOUT_SECONDS = 60.0  # seconds without a byte
CHUNK_BYTES = 2**20


def download_archive(url: str, sha256: str, folder: Path) -> Path:
    """Fetch an archive into a folder and check its hash. Raises UserError saying what the server or the hash said."""
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{url}: expected a URL that begins with https:// or http://")
    pooch.get_logger().setLevel("WARNING")
    loader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, chunk_size=CHUNK_BYTES)
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname="archive", path=folder, downloader=loader))
    except requests.RequestException as error:
        raise UserError(f"{url}: can't be downloaded: {error}") from None
    except ValueError as error:
        raise UserError(f"{url}: not the file that was pinned: {error}") from None


def _select_json(name: str) -> str | None:
    path = PurePosixPath(name)
    return name if path.suffix == JSON_SUFFIX and not path.name.startswith("._") else None


def extract_json_files(archive: Path, folder: Path) -> list[Path]:
    """Write the *.json files of a zip or tar archive (tar.gz, .bz2, .xz too) below a folder, at their paths in it.

    Hidden files (a Mac's `._name`) are left out. Raises UserError for another format, a damaged archive, one without
    JSON files, a JSON member that is a link or device, repeats a path or would leave the folder, and for more than
    MAX_BYTES; what was written by then is left to the caller.
    """
    written: list[Path] = []
    bytes_left = MAX_BYTES
    try:
        for name, content in archives.select_members(archives.iter_members(archive), _select_json):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                for chunk in archives.iter_chunks(content):
                    bytes_left -= len(chunk)
                    if bytes_left < 0:
                        raise UserError(f"its {JSON_SUFFIX} files are larger than {MAX_BYTES} bytes together")
                    out.write(chunk)
            written.append(target)
    except archives.DamagedArchiveError as error:
        raise UserError(f"the archive {error}") from None
    if not written:
        raise UserError(f"it holds no {JSON_SUFFIX} file")
    return written


def fetch_release(url: str, sha256: str, folder: Path) -> list[Path]:
    """Download an archive and extract its JSON files below a folder. Raises UserError naming the URL."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = download_archive(url, sha256, Path(temporary))
        try:
            return extract_json_files(archive, folder)
        except UserError as error:
            raise UserError(f"{url}: {error}") from None

"""Download of the release: an archive by a pinned URL and hash."""

import tempfile
from pathlib import Path

import pooch
import requests

from medmim.benchmarks.released.question_files import extract_question_files
from medmim.common.errors import UserError

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


def fetch_release(url: str, sha256: str, folder: Path) -> list[Path]:
    """Download an archive and extract its JSON files below a folder. Raises UserError naming the URL."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = download_archive(url, sha256, Path(temporary))
        try:
            return extract_question_files(archive, folder)
        except UserError as error:
            raise UserError(f"{url}: {error}") from None

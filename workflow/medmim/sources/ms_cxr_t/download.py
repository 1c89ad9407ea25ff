"""MS-CXR-T from PhysioNet: its table, then the images of MIMIC-CXR-JPG that the table names, with the user's login.

Files and SHA256SUMS.txt: https://physionet.org/content/ms-cxr-t/1.0.0/, https://physionet.org/content/mimic-cxr-jpg/2.1.0/. Every
file is checked against its sha256 there.
"""

from collections.abc import Collection
from pathlib import Path

from medmim.common import files
from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.config.source_plugins import SOURCES
from medmim.download import credentials
from medmim.download.estimate import Estimate
from medmim.download.http import HttpClient
from medmim.download.source_folder import DownloadFolder
from medmim.download.transfer import Checksum
from medmim.sources.ms_cxr_t import adapter

LABEL_PROJECT, IMAGE_PROJECT = "ms-cxr-t/1.0.0", "mimic-cxr-jpg/2.1.0"
CHECKSUM_FILE = "SHA256SUMS.txt"
TABLE_FILE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"


def _make_client(settings: Download, parallel: int = 1) -> HttpClient:
    base = settings.physionet
    return HttpClient(base, credentials.find_physionet_login(base), SOURCES["ms_cxr_t"].how_to_apply, parallel)


def _read_checksums(path: Path, paths: Collection[str]) -> dict[str, str]:
    """sha256 of the wanted files, by path; a line is a hash, blanks, and a path."""
    checksums = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            digest, _, name = line.strip().partition(" ")
            if (name := name.strip()) in paths:
                checksums[name] = digest.lower()
    return checksums


def _fetch_checksums(folder: DownloadFolder, server: HttpClient, project: str, paths: Collection[str]) -> dict[str, str]:
    """What the owner states of the wanted files of a project."""
    checksum_path = f"{files.DOWNLOAD_FOLDER}/{project.replace('/', '-')}.{CHECKSUM_FILE}"
    folder.fetch_auxiliary(server.make_remote(checksum_path, f"{server.base}/{project}/{CHECKSUM_FILE}"))
    return _read_checksums(folder.root / checksum_path, paths)


def fetch_source(folder: DownloadFolder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    server = _make_client(settings, folder.parallel)
    if not folder.has_file(TABLE_FILE):
        checksums = _fetch_checksums(folder, server, LABEL_PROJECT, {TABLE_FILE})
        if TABLE_FILE not in checksums:
            raise UserError(f"{server.base}/{LABEL_PROJECT}/{CHECKSUM_FILE}: names no {TABLE_FILE}")
        folder.fetch_required(
            server.make_remote(
                TABLE_FILE, f"{server.base}/{LABEL_PROJECT}/{TABLE_FILE}", None, Checksum("sha256", checksums[TABLE_FILE])
            )
        )
    pictures = adapter.read_contents(folder.root).limit_patients(limit).pictures
    owner_paths = {p.file: f"files/{p.release_path.removesuffix('.png')}.jpg" for p in pictures}  # they differ in a flat folder
    if absent_paths := folder.find_absent_files(owner_paths):
        checksums = _fetch_checksums(folder, server, IMAGE_PROJECT, {owner_paths[path] for path in absent_paths})
        for path in sorted(path for path in absent_paths if owner_paths[path] not in checksums):
            folder.mark_missing(path, f"the table names it, but {IMAGE_PROJECT}/{CHECKSUM_FILE} does not")
        folder.fetch_files(
            server.make_remote(
                path, f"{server.base}/{IMAGE_PROJECT}/{owner_path}", None, Checksum("sha256", checksums[owner_path])
            )
            for path in absent_paths
            if (owner_path := owner_paths[path]) in checksums
        )


def locate_credentials(settings: Download) -> str:
    """Where the user's login is; empty where there is none."""
    user_login = credentials.find_physionet_login(settings.physionet)
    return user_login.where if user_login else ""


PAIR_COUNT = 1326
"""Of pairs of images, as the owner's page states."""


def estimate_size(settings: Download, limit: int | None) -> Estimate:
    """Ask both projects whether they let the user in; none states the bytes. Raises AccessDeniedError, TransientError."""
    server = _make_client(settings)
    for project in (LABEL_PROJECT, IMAGE_PROJECT):
        server.get_size(f"{server.base}/{project}/{CHECKSUM_FILE}")
    return Estimate(None, None, f"not stated: at most {2 * PAIR_COUNT} images, of some MB each")

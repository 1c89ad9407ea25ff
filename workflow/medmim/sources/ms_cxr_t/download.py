"""MS-CXR-T from PhysioNet: its table, then the images of MIMIC-CXR-JPG that the table names, with the user's login.

Files and SHA256SUMS.txt: https://physionet.org/content/ms-cxr-t/1.0.0/, https://physionet.org/content/mimic-cxr-jpg/2.1.0/. Every
file is checked against its sha256 there.
"""

from collections.abc import Collection
from pathlib import Path

from medmim.common import files
from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download import credentials
from medmim.download.estimate import Estimate
from medmim.download.http import Http
from medmim.download.source_folder import Folder
from medmim.download.transfer import Checksum
from medmim.sources.ms_cxr_t import adapter
from medmim.sources.terms import OWNERS

PROJECT, IMAGES = "ms-cxr-t/1.0.0", "mimic-cxr-jpg/2.1.0"
SUMS = "SHA256SUMS.txt"
TABLE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"


def _server(settings: Download, parallel: int = 1) -> Http:
    base = settings.physionet
    return Http(base, credentials.physionet(base), OWNERS["ms_cxr_t"].apply, parallel)


def _sums(path: Path, wanted: Collection[str]) -> dict[str, str]:
    """sha256 of the wanted files, by path; a line is a hash, blanks, and a path."""
    found = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            digest, _, name = line.strip().partition(" ")
            if (name := name.strip()) in wanted:
                found[name] = digest.lower()
    return found


def _stated(folder: Folder, server: Http, project: str, wanted: Collection[str]) -> dict[str, str]:
    """What the owner states of the wanted files of a project."""
    place = f"{files.ASIDE}/{project.replace('/', '-')}.{SUMS}"
    folder.aside(server.file(place, f"{server.base}/{project}/{SUMS}"))
    return _sums(folder.root / place, wanted)


def fetch(folder: Folder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    server = _server(settings, folder.parallel)
    if not folder.has(TABLE):
        stated = _stated(folder, server, PROJECT, {TABLE})
        if TABLE not in stated:
            raise UserError(f"{server.base}/{PROJECT}/{SUMS}: names no {TABLE}")
        folder.required(server.file(TABLE, f"{server.base}/{PROJECT}/{TABLE}", None, Checksum("sha256", stated[TABLE])))
    if new := folder.lacking(p.file for p in adapter.plan(folder.root).limited(limit).pictures):
        stated = _stated(folder, server, IMAGES, set(new))
        for path in sorted(set(new) - stated.keys()):
            folder.miss(path, f"the table names it, but {IMAGES}/{SUMS} does not")
        folder.files(
            server.file(path, f"{server.base}/{IMAGES}/{path}", None, Checksum("sha256", digest))
            for path, digest in stated.items()
        )


def login(settings: Download) -> str:
    """Where the user's login is; empty where there is none."""
    found = credentials.physionet(settings.physionet)
    return found.where if found else ""


LABELS = 1326
"""Of pairs of images, as the owner's page states."""


def estimate(settings: Download, limit: int | None) -> Estimate:
    """Nothing states the bytes, but this asks both projects whether they let the user in. Raises Refused, Passing."""
    server = _server(settings)
    for project in (PROJECT, IMAGES):
        server.size(f"{server.base}/{project}/{SUMS}")
    return Estimate(None, None, f"not stated: at most {2 * LABELS} images, of some MB each")

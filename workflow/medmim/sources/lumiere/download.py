"""LUMIERE from figshare: the tables of its collection, and the volumes that the adapter reads out of its archive of images.

API: https://docs.figshare.com (collection articles, article files). It states the size and md5 of each file.
"""

import re
from fnmatch import fnmatch
from typing import Any

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download.estimate import Estimate
from medmim.download.http import Http
from medmim.download.source_folder import Folder
from medmim.download.transfer import Checksum, Patience, Remote
from medmim.sources.lumiere import adapter

COLLECTION = 5904905
PAGE = 100
TABLES = (adapter.RATINGS, "LUMIERE-Demographics_Pathology.csv")
ARCHIVE = "Imaging-v*.zip"
VOLUME = re.compile(rf"(?:.*/)?(Patient-[^/]+/week-[^/]+/(?:{'|'.join(adapter.SEQUENCES)})\.nii\.gz)")
ONCE = "the whole collection"


def _volume(name: str) -> str | None:
    found = VOLUME.fullmatch(name)
    return f"Imaging/{found[1]}" if found else None


def _listed(server: Http, patience: Patience) -> dict[str, Remote]:
    """Files of the collection that are ours, by pattern."""

    def ask(path: str, **query: Any) -> Any:
        return patience.call(lambda: server.json(f"{server.base}/{path}", **query))

    articles, page = [], 1
    while part := ask(f"collections/{COLLECTION}/articles", page=page, page_size=PAGE):
        articles += part
        page += 1
        if len(part) < PAGE:
            break
    found: dict[str, Remote] = {}
    for article in articles:
        for file in ask(f"articles/{int(article['id'])}/files"):
            for pattern in (*TABLES, ARCHIVE):
                if fnmatch(file["name"], pattern):
                    md5 = file.get("computed_md5") or file.get("supplied_md5")
                    checksum = Checksum("md5", md5) if md5 else None
                    found[pattern] = server.file(file["name"], file["download_url"], file["size"], checksum)
    if missing := [p for p in (adapter.RATINGS, ARCHIVE) if p not in found]:
        raise UserError(f"{server.base}: collection {COLLECTION} has no {' and no '.join(missing)} any more")
    return found


def fetch(folder: Folder, settings: Download, limit: int | None) -> None:
    """Fill the folder. There is one archive for all patients, so that `limit` spares nothing here."""
    if folder.ledger.finished(ONCE):
        return
    server = Http(settings.figshare, connections=folder.parallel)
    listed = _listed(server, folder.patience)
    for pattern in TABLES:
        if pattern in listed:
            folder.required(listed[pattern])
    folder.archive(listed[ARCHIVE], _volume)
    folder.ledger.finish(ONCE)


def login(settings: Download) -> None:
    """None is needed."""


def estimate(settings: Download, limit: int | None) -> Estimate:
    """As the API states. Raises Passing."""
    listed = _listed(Http(settings.figshare), Patience(retries=1))
    size = sum(remote.size or 0 for remote in listed.values())
    return Estimate(size, 2 * size, "as its server states")

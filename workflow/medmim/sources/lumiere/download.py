"""LUMIERE from figshare: the tables of its collection, and the volumes that the adapter reads out of its archive of images.

API: https://docs.figshare.com (collection articles, article files). It states the size and md5 of each file.
"""

import re
from fnmatch import fnmatch
from typing import Any

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download.estimate import Estimate
from medmim.download.http import HttpClient
from medmim.download.source_folder import DownloadFolder
from medmim.download.transfer import Checksum, RemoteFile, RetryPolicy
from medmim.sources.lumiere import adapter

COLLECTION_ID = 5904905
PAGE_SIZE = 100
TABLE_FILES = (adapter.RATINGS_FILE, "LUMIERE-Demographics_Pathology.csv")
ARCHIVE_PATTERN = "Imaging-v*.zip"
ADAPTER_FILES = (adapter.MASK_FILE, *map(adapter.registered_file, adapter.SEQUENCES))
VOLUME_PATTERN = re.compile(rf"(?:.*/)?(Patient-[^/]+/week-[^/]+/(?:{'|'.join(map(re.escape, ADAPTER_FILES))}))")
COMPLETION_KEY = "the collection's registered volumes"


def _select_volume(name: str) -> str | None:
    match = VOLUME_PATTERN.fullmatch(name)
    return f"Imaging/{match[1]}" if match else None


def _list_remotes(server: HttpClient, retry_policy: RetryPolicy) -> dict[str, RemoteFile]:
    """Files of the collection that are ours, by pattern."""

    def request_json(path: str, **query: Any) -> Any:
        return retry_policy.call(lambda: server.get_json(f"{server.base}/{path}", **query))

    articles, page = [], 1
    while page_articles := request_json(f"collections/{COLLECTION_ID}/articles", page=page, page_size=PAGE_SIZE):
        articles += page_articles
        page += 1
        if len(page_articles) < PAGE_SIZE:
            break
    remotes_by_pattern: dict[str, RemoteFile] = {}
    for article in articles:
        for file in request_json(f"articles/{int(article['id'])}/files"):
            for pattern in (*TABLE_FILES, ARCHIVE_PATTERN):
                if fnmatch(file["name"], pattern):
                    md5 = file.get("computed_md5") or file.get("supplied_md5")
                    checksum = Checksum("md5", md5) if md5 else None
                    remotes_by_pattern[pattern] = server.make_remote(file["name"], file["download_url"], file["size"], checksum)
    if missing_patterns := [p for p in (adapter.RATINGS_FILE, ARCHIVE_PATTERN) if p not in remotes_by_pattern]:
        raise UserError(f"{server.base}: collection {COLLECTION_ID} has no {' and no '.join(missing_patterns)} any more")
    return remotes_by_pattern


def fetch_source(folder: DownloadFolder, settings: Download, limit: int | None) -> None:
    """Fill the folder. There is one archive for all patients, so that `limit` spares nothing here."""
    if folder.ledger.is_done(COMPLETION_KEY):
        return
    server = HttpClient(settings.figshare, connections=folder.parallel)
    remotes_by_pattern = _list_remotes(server, folder.retry_policy)
    for pattern in TABLE_FILES:
        if pattern in remotes_by_pattern:
            folder.fetch_required(remotes_by_pattern[pattern])
    folder.fetch_archive(remotes_by_pattern[ARCHIVE_PATTERN], _select_volume)
    folder.ledger.mark_done(COMPLETION_KEY)


def locate_credentials(settings: Download) -> None:
    """None is needed."""


def estimate_size(settings: Download, limit: int | None) -> Estimate:
    """As the API states. Raises TransientError."""
    remotes_by_pattern = _list_remotes(HttpClient(settings.figshare), RetryPolicy(retries=1))
    size = sum(remote.size or 0 for remote in remotes_by_pattern.values())
    return Estimate(size, 2 * size, "as its server states")

"""VQA-RAD from OSF: its JSON, then the images that it names.

API: https://developer.osf.io (List all node files); entries of a folder in pages, with size, md5 and sha256 of each file.
"""

from functools import partial
from typing import Any

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download.estimate import Estimate
from medmim.download.http import HttpClient
from medmim.download.source_folder import DownloadFolder
from medmim.download.transfer import Checksum, RemoteFile, RetryPolicy
from medmim.sources.vqa_rad import adapter

NODE_ID = "89kps"
PAGE_SIZE = 100


class _OsfStorage:
    """The files of the OSF project."""

    def __init__(self, settings: Download, retry_policy: RetryPolicy, connections: int = 1) -> None:
        self.server = HttpClient(settings.osf, connections=connections)
        self._retry_policy = retry_policy

    def list_entries(self, url: str) -> list[dict[str, Any]]:
        """Entries of a folder, page by page."""
        entries: list[dict[str, Any]] = []
        next_url: str | None = f"{url}?page%5Bsize%5D={PAGE_SIZE}"
        while next_url:
            response = self._retry_policy.call(partial(self.server.get_json, next_url))
            entries += response["data"]
            next_url = response["links"].get("next")
        return entries

    def list_remotes(self) -> dict[str, RemoteFile]:
        """The JSON and the images, by path below our folder."""
        top_entries = self.list_entries(f"{self.server.base}/nodes/{NODE_ID}/files/osfstorage/")
        folder = next((e for e in top_entries if e["attributes"]["name"] == adapter.IMAGE_FOLDER), None)
        if folder is None:
            raise UserError(f"{self.server.base}: node {NODE_ID} has no folder {adapter.IMAGE_FOLDER!r} any more")
        image_entries = self.list_entries(folder["relationships"]["files"]["links"]["related"]["href"].partition("?")[0])
        entries_by_path = {
            f"{adapter.IMAGE_FOLDER}/{e['attributes']['name']}": e for e in image_entries if e["attributes"]["kind"] == "file"
        }
        entries_by_path |= {e["attributes"]["name"]: e for e in top_entries if e["attributes"]["name"] == adapter.RECORDS_FILE}
        return {path: self._make_remote(path, entry) for path, entry in entries_by_path.items()}

    def _make_remote(self, path: str, entry: dict[str, Any]) -> RemoteFile:
        hashes = entry["attributes"].get("extra", {}).get("hashes", {})
        checksums = [Checksum(name, hashes[name]) for name in ("sha256", "md5") if hashes.get(name)]
        return self.server.make_remote(
            path, entry["links"]["download"], entry["attributes"]["size"], checksums[0] if checksums else None
        )


def fetch_source(folder: DownloadFolder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    storage = _OsfStorage(settings, folder.retry_policy, folder.parallel)
    remotes_by_path: dict[str, RemoteFile] = {}
    if not folder.has_file(adapter.RECORDS_FILE):
        remotes_by_path = storage.list_remotes()
        if adapter.RECORDS_FILE not in remotes_by_path:
            raise UserError(f"{storage.server.base}: node {NODE_ID} has no {adapter.RECORDS_FILE!r} any more")
        folder.fetch_required(remotes_by_path[adapter.RECORDS_FILE])
    if absent_paths := folder.find_absent_files(
        p.file for p in adapter.read_contents(folder.root).limit_patients(limit).pictures
    ):
        remotes_by_path = remotes_by_path or storage.list_remotes()
        for path in absent_paths:
            if path not in remotes_by_path:
                folder.mark_missing(path, f"{adapter.RECORDS_FILE} names it, but it is not in OSF's folder")
        folder.fetch_files(remotes_by_path[path] for path in absent_paths if path in remotes_by_path)


def locate_credentials(settings: Download) -> None:
    """None is needed."""


def estimate_size(settings: Download, limit: int | None) -> Estimate:
    """As the API states. Raises TransientError."""
    size = sum(remote.size or 0 for remote in _OsfStorage(settings, RetryPolicy(retries=1)).list_remotes().values())
    return Estimate(size, size, "as its server states")

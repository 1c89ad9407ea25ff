"""VQA-RAD from OSF: its JSON, then the images that it names.

API: https://developer.osf.io (List all node files); entries of a folder in pages, with size, md5 and sha256 of each file.
"""

from functools import partial
from typing import Any

from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download.estimate import Estimate
from medmim.download.http import Http
from medmim.download.source_folder import Folder
from medmim.download.transfer import Checksum, Patience, Remote
from medmim.sources.vqa_rad import adapter

NODE = "89kps"
PAGE = 100


class _Storage:
    """The files of the OSF project."""

    def __init__(self, settings: Download, patience: Patience, connections: int = 1) -> None:
        self.server = Http(settings.osf, connections=connections)
        self._patience = patience

    def entries(self, url: str) -> list[dict[str, Any]]:
        """Entries of a folder, page by page."""
        found: list[dict[str, Any]] = []
        following: str | None = f"{url}?page%5Bsize%5D={PAGE}"
        while following:
            told = self._patience.call(partial(self.server.json, following))
            found += told["data"]
            following = told["links"].get("next")
        return found

    def listed(self) -> dict[str, Remote]:
        """The JSON and the images, by path below our folder."""
        top = self.entries(f"{self.server.base}/nodes/{NODE}/files/osfstorage/")
        folder = next((e for e in top if e["attributes"]["name"] == adapter.FOLDER), None)
        if folder is None:
            raise UserError(f"{self.server.base}: node {NODE} has no folder {adapter.FOLDER!r} any more")
        images = self.entries(folder["relationships"]["files"]["links"]["related"]["href"].partition("?")[0])
        found = {f"{adapter.FOLDER}/{e['attributes']['name']}": e for e in images if e["attributes"]["kind"] == "file"}
        found |= {e["attributes"]["name"]: e for e in top if e["attributes"]["name"] == adapter.RECORDS}
        return {path: self._remote(path, entry) for path, entry in found.items()}

    def _remote(self, path: str, entry: dict[str, Any]) -> Remote:
        hashes = entry["attributes"].get("extra", {}).get("hashes", {})
        stated = [Checksum(name, hashes[name]) for name in ("sha256", "md5") if hashes.get(name)]
        return self.server.file(path, entry["links"]["download"], entry["attributes"]["size"], stated[0] if stated else None)


def fetch(folder: Folder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    storage = _Storage(settings, folder.patience, folder.parallel)
    listed: dict[str, Remote] = {}
    if not folder.has(adapter.RECORDS):
        listed = storage.listed()
        if adapter.RECORDS not in listed:
            raise UserError(f"{storage.server.base}: node {NODE} has no {adapter.RECORDS!r} any more")
        folder.required(listed[adapter.RECORDS])
    if new := folder.lacking(p.file for p in adapter.plan(folder.root).limited(limit).pictures):
        listed = listed or storage.listed()
        for path in new:
            if path not in listed:
                folder.miss(path, f"{adapter.RECORDS} names it, but it is not in OSF's folder")
        folder.files(listed[path] for path in new if path in listed)


def login(settings: Download) -> None:
    """None is needed."""


def estimate(settings: Download, limit: int | None) -> Estimate:
    """As the API states. Raises Passing."""
    size = sum(remote.size or 0 for remote in _Storage(settings, Patience(retries=1)).listed().values())
    return Estimate(size, size, "as its server states")

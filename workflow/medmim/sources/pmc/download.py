"""The PMC-15M subset: LLaVA-Med's conversations and list of figures, then each figure out of its paper's archive, or by itself.

Lists: https://github.com/microsoft/LLaVA-Med (data download). Archives are read as they come, each once, and kept nowhere: of all
papers together they are terabytes. NCBI has moved them to deprecated/ in April 2026 and announced to remove them in August
(https://pmc.ncbi.nlm.nih.gov/tools/cloud/); LLaVA-Med's list still has the old addresses, which a mirror may have kept.

What is in no archive is looked for in PubMed Central's own bucket (https://pmc.ncbi.nlm.nih.gov/tools/pmcaws/), in which the
files of an article's version are at PMC<id>.<version>/<file>. Nothing states hashes of figures.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath

from medmim.common import archives
from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.config.source_plugins import SOURCES
from medmim.download.errors import AccessDeniedError, NotFoundError, TransientError, UnreachableError
from medmim.download.estimate import Estimate
from medmim.download.http import HttpClient
from medmim.download.s3 import S3Bucket
from medmim.download.source_folder import DownloadFolder
from medmim.sources.pmc import adapter

LIST_PATHS = {adapter.RECORDS_FILE: f"instruct/{adapter.RECORDS_FILE}", adapter.URLS_FILE: adapter.URLS_FILE}
PACKAGE_FOLDER = "oa_package/"
PACKAGE_PLACES = (f"deprecated/{PACKAGE_FOLDER}", PACKAGE_FOLDER)
"""Where archives are now, and where they were."""
FigurePaths = dict[str, str]
"""Path below our folder, by the member's name in the paper's archive."""


class _PaperFetcher:
    """The places that have papers' figures."""

    def __init__(self, folder: DownloadFolder, settings: Download) -> None:
        self.folder, self.base = folder, settings.pmc
        self.http = HttpClient(settings.pmc, connections=folder.parallel)
        cloud_settings = settings.pmc_cloud
        self.cloud = (
            S3Bucket(
                cloud_settings.name,
                cloud_settings.prefix,
                cloud_settings.region,
                cloud_settings.endpoint,
                signed=False,
                connections=folder.parallel,
            )
            if cloud_settings
            else None
        )

    def fetch_paper(self, paper: tuple[str, FigurePaths]) -> None:
        """Bring one paper's figures; what is nowhere is noted as missing."""
        url, figures = paper
        reason = ""
        for place in _list_places(url, self.base):
            try:
                reason = self.folder.call_with_retries(partial(self._fetch_from_archive, place, figures))
                break
            except NotFoundError as error:
                reason = reason or str(error)
        if remaining := {member: path for member, path in figures.items() if not self.folder.has_file(path)}:
            self._fetch_from_cloud(remaining, reason)

    def _fetch_from_archive(self, url: str, figures: FigurePaths) -> str:
        """Read a paper's archive as it comes, until all that is wanted came; returns why something may not have."""
        remaining = {m: p for m, p in figures.items() if not self.folder.has_file(p)}
        remote = self.http.make_remote("", url)
        try:
            with remote.open(0, "") as response:
                reader = _ChunkReader(response.chunks, self.folder.count_bytes)
                for member, content in archives.select_members(
                    archives.iter_tar_members(reader), lambda name: name if name in remaining else None
                ):
                    self.folder.store_member(remaining.pop(member), archives.iter_chunks(content), f"{remote.origin}!{member}")
                    self.folder.meter.add_file()
                    if not remaining:
                        break
        except archives.DamagedArchiveError as error:
            if response.total is not None and reader.byte_count < response.total:
                raise TransientError(
                    f"{remote.origin}: the connection was cut after {reader.byte_count} of {response.total} bytes"
                ) from None
            return f"{remote.origin}: {error}"
        except (AccessDeniedError, UnreachableError):
            raise
        except UserError as error:  # one that means ill
            return f"{remote.origin}: {error}"
        return f"{remote.origin}: has no such member"

    def _fetch_from_cloud(self, figures: FigurePaths, reason: str) -> None:
        """Bring figures by themselves, from the newest version of their article that has them."""
        paper = PurePosixPath(next(iter(figures))).parts[0]
        cloud_paths: dict[str, str] = {}
        if self.cloud and re.fullmatch(r"PMC\d+", paper):
            for remote in self.folder.call_with_retries(lambda: self.cloud.list_objects(f"{paper}.")):  # type: ignore[union-attr]
                cloud_paths[PurePosixPath(remote.path).name] = remote.path  # sorted: the last version counts
        for member, path in figures.items():
            name = PurePosixPath(member).name
            if self.cloud and name in cloud_paths:
                self.folder.fetch_file(self.cloud.make_remote(cloud_paths[name], destination=path))
            else:
                self.folder.mark_missing(path, reason + (f"; nor in s3://{self.cloud.name}" if self.cloud else ""))
                self.folder.meter.add_file()


class _ChunkReader:
    """Chunks as a stream, of which `tell` hears."""

    def __init__(self, chunks: Iterator[bytes], on_bytes: Callable[[int], None]) -> None:
        self._chunks, self._on_bytes, self._buffer, self.byte_count = chunks, on_bytes, b"", 0

    def __call__(self, size: int) -> bytes:
        if not self._buffer:
            self._buffer = next(self._chunks, b"")
            self.byte_count += len(self._buffer)
            self._on_bytes(len(self._buffer))
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


def _list_places(url: str, base: str) -> list[str]:
    """Addresses at which a paper's archive is asked for in turn, on the server that the settings name; else the list's own."""
    package_path = url.partition(PACKAGE_FOLDER)[2]
    return [f"{base}/{place}{package_path}" for place in PACKAGE_PLACES] if package_path else [url]


def fetch_source(folder: DownloadFolder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    list_server = HttpClient(settings.llava_med, connections=folder.parallel)
    for path, url_path in LIST_PATHS.items():
        if not folder.has_file(path):
            folder.fetch_required(list_server.make_remote(path, f"{list_server.base}/{url_path}"))
    (folder.root / adapter.IMAGE_FOLDER).mkdir(exist_ok=True)  # by which the adapter knows the layout
    studies_by_path = {p.file: p.study for p in adapter.read_contents(folder.root).limit_patients(limit).pictures}
    locations = adapter.read_figure_locations(folder.root)
    papers: dict[str, FigurePaths] = defaultdict(dict)
    for path in folder.find_absent_files(studies_by_path):
        location = locations[studies_by_path[path]]
        papers[str(location["pmc_tar_url"])][str(location["image_file_path"])] = path
    folder.meter.add_expected(sum(map(len, papers.values())), 0)
    folder.run_parallel(papers.items(), _PaperFetcher(folder, settings).fetch_paper)


def locate_credentials(settings: Download) -> None:
    """None is needed."""


def estimate_size(settings: Download, limit: int | None) -> Estimate:
    """The lists as their server states, and what users report of the figures. Raises TransientError."""
    list_server = HttpClient(settings.llava_med)
    size = sum(list_server.get_size(f"{list_server.base}/{place}") or 0 for place in LIST_PATHS.values())
    figures = SOURCES["pmc"].published_bytes or 0
    return Estimate(size + figures, size + figures, f"at most: {SOURCES['pmc'].published}")

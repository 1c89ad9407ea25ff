"""The PMC-15M subset: LLaVA-Med's conversations and list of figures, then each figure out of its paper's archive, or by itself.

Lists: https://github.com/microsoft/LLaVA-Med (data download). Archives are read as they come, each once, and kept nowhere: of all
papers together they are terabytes. NCBI has moved them in April 2026 and announced to remove them in August
(https://pmc.ncbi.nlm.nih.gov/tools/cloud/); what is in no archive is looked for in PubMed Central's own bucket
(https://pmc.ncbi.nlm.nih.gov/tools/pmcaws/), in which the files of an article's version are at PMC<id>.<version>/<file>. Nothing
states hashes of figures.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath

from medmim.common import archives
from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download.errors import Missing, Passing, Refused, Unreachable
from medmim.download.estimate import Estimate
from medmim.download.http import Http
from medmim.download.s3 import S3
from medmim.download.source_folder import Folder
from medmim.sources.pmc import adapter
from medmim.sources.terms import OWNERS

LISTS = {adapter.RECORDS: f"instruct/{adapter.RECORDS}", adapter.URLS: adapter.URLS}
PACKAGES = "oa_package/"
Figures = dict[str, str]
"""Path below our folder, by the member's name in the paper's archive."""


class _Papers:
    """The places that have papers' figures."""

    def __init__(self, folder: Folder, settings: Download) -> None:
        self.folder, self.base = folder, settings.pmc
        self.http = Http(settings.pmc, connections=folder.parallel)
        at = settings.pmc_cloud
        self.cloud = S3(at.name, at.prefix, at.region, at.endpoint, signed=False, connections=folder.parallel) if at else None

    def fetch(self, paper: tuple[str, Figures]) -> None:
        """Bring one paper's figures; what is nowhere is noted as missing."""
        url, figures = paper
        try:
            why = self.folder.ask(partial(self._of_archive, url, figures))
        except Missing as error:
            why = str(error)
        if left := {member: path for member, path in figures.items() if not self.folder.has(path)}:
            self._of_cloud(left, why)

    def _of_archive(self, url: str, figures: Figures) -> str:
        """Read a paper's archive as it comes, until all that is wanted came; returns why something may not have."""
        left = {m: p for m, p in figures.items() if not self.folder.has(p)}
        remote = self.http.file("", url)
        try:
            with remote.open(0, "") as answer:
                read = _Reader(answer.chunks, self.folder.tell)
                for member, content in archives.chosen(archives.tar_members(read), lambda name: name if name in left else None):
                    self.folder.keep(left.pop(member), archives.chunks(content), f"{remote.origin}!{member}")
                    self.folder.meter.done()
                    if not left:
                        break
        except archives.Damaged as error:
            if answer.total is not None and read.count < answer.total:
                raise Passing(f"{remote.origin}: the connection was cut after {read.count} of {answer.total} bytes") from None
            return f"{remote.origin}: {error}"
        except (Refused, Unreachable):
            raise
        except UserError as error:  # one that means ill
            return f"{remote.origin}: {error}"
        return f"{remote.origin}: has no such member"

    def _of_cloud(self, figures: Figures, why: str) -> None:
        """Bring figures by themselves, from the newest version of their article that has them."""
        paper = PurePosixPath(next(iter(figures))).parts[0]
        there: dict[str, str] = {}
        if self.cloud and re.fullmatch(r"PMC\d+", paper):
            for remote in self.folder.ask(lambda: self.cloud.listing(f"{paper}.")):  # type: ignore[union-attr]
                there[PurePosixPath(remote.path).name] = remote.path  # sorted: the last version counts
        for member, path in figures.items():
            name = PurePosixPath(member).name
            if self.cloud and name in there:
                self.folder.fetch(self.cloud.file(there[name], place=path))
            else:
                self.folder.miss(path, why + (f"; nor in s3://{self.cloud.name}" if self.cloud else ""))
                self.folder.meter.done()


class _Reader:
    """Chunks as a stream, of which `tell` hears."""

    def __init__(self, chunks: Iterator[bytes], tell: Callable[[int], None]) -> None:
        self._chunks, self._tell, self._rest, self.count = chunks, tell, b"", 0

    def __call__(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
            self.count += len(self._rest)
            self._tell(len(self._rest))
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _at(url: str, base: str) -> str:
    """Where a paper's archive is asked for: the list's own address, on the server that the settings name."""
    place = url.partition(PACKAGES)[2]
    return f"{base}/{PACKAGES}{place}" if place else url


def fetch(folder: Folder, settings: Download, limit: int | None) -> None:
    """Fill the folder."""
    lists = Http(settings.llava_med, connections=folder.parallel)
    for path, place in LISTS.items():
        if not folder.has(path):
            folder.required(lists.file(path, f"{lists.base}/{place}"))
    (folder.root / adapter.IMAGES).mkdir(exist_ok=True)  # by which the adapter knows the layout
    studies = {p.file: p.study for p in adapter.plan(folder.root).limited(limit).pictures}
    at = adapter.places(folder.root)
    papers: dict[str, Figures] = defaultdict(dict)
    for path in folder.lacking(studies):
        told = at[studies[path]]
        papers[_at(str(told["pmc_tar_url"]), settings.pmc)][str(told["image_file_path"])] = path
    folder.meter.expect(sum(map(len, papers.values())), 0)
    folder.each(papers.items(), _Papers(folder, settings).fetch)


def login(settings: Download) -> None:
    """None is needed."""


def estimate(settings: Download, limit: int | None) -> Estimate:
    """The lists as their server states, and what users report of the figures. Raises Passing."""
    lists = Http(settings.llava_med)
    size = sum(lists.size(f"{lists.base}/{place}") or 0 for place in LISTS.values())
    figures = OWNERS["pmc"].published_bytes or 0
    return Estimate(size + figures, size + figures, f"at most: {OWNERS['pmc'].published}")

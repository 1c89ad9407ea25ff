"""A source's folder while it is being filled: what is wanted is fetched, many files at once, and what is there stays."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from filelock import FileLock, Timeout

from medmim.common import archives, files
from medmim.common.errors import UserError
from medmim.download import transfer
from medmim.download.errors import Missing, Passing, Unreachable
from medmim.download.ledger import Ledger
from medmim.download.progress import Meter
from medmim.download.transfer import Patience, Remote

log = logging.getLogger("medmim")
T = TypeVar("T")


def safe(path: str) -> str:
    """`path` if it stays in its folder, which servers and tables of others name. Raises UserError."""
    parts = PurePosixPath(path)
    inside = path and not parts.is_absolute() and ".." not in parts.parts and "\\" not in path and path.isprintable()
    if not inside or parts.parts[0] == files.ASIDE:
        raise UserError(f"{path!r} is not a path below the source's folder")
    return path


def complete(limit: int | None) -> str:
    """What a ledger says of a source that is there for so many patients."""
    return "all" if limit is None else f"all of {limit} patients"


class Stopped(Exception):
    """The work of one thread, as that of another failed."""


class Folder:
    """One source's folder, held by this process alone; a context. `missing` grows with what the owner does not have."""

    def __init__(self, name: str, root: Path, patience: Patience | None = None, parallel: int = 4) -> None:
        self.name, self.root, self.parallel = name, root, parallel
        self.patience = replace(patience or Patience(), over=threading.Event())
        self.wanted: set[str] = set()
        """Paths of the files that were asked for."""
        self.missing: dict[str, str] = {}
        self._aside = root / files.ASIDE
        self._aside.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._aside / "lock", timeout=0)
        self.meter = Meter(name)

    def __enter__(self) -> "Folder":
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"{self.root}: another download into this folder is at work: wait for it, or stop it") from None
        self.ledger = Ledger(self.root)
        self.meter.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.meter.__exit__(None, None, None)
        self._lock.release()

    def ask(self, question: Callable[[], T]) -> T:
        """An answer of a server, asked again while its faults may pass."""
        try:
            return self.patience.call(question)
        except Passing as error:
            raise Unreachable(f"{error}, after {self.patience.retries} attempts") from None

    def has(self, path: str) -> bool:
        """Whether a file is there as it was fetched."""
        return self.ledger.holds(path)

    def required(self, remote: Remote) -> Path:
        """A file without which there is no going on, fetched if it is not there. Raises UserError where the owner has it not."""
        self.files([remote])
        if why := self.missing.get(remote.path):
            raise UserError(f"{why}: without it {self.name} can't be fetched")
        return self.root / remote.path

    def lacking(self, paths: Iterable[str]) -> list[str]:
        """Those of the wanted paths whose files are not there yet, once each."""
        found: dict[str, None] = {}
        for path in paths:
            self.wanted.add(path)
            try:
                if not self.has(safe(path)):
                    found[path] = None
            except UserError as error:  # one bad row of a table is no reason to fetch nothing
                self.missing[path] = str(error)
        return list(found)

    def aside(self, remote: Remote) -> None:
        """Fetch a file of use for the download only. Raises UserError where the owner has it not."""
        if not self.has(remote.path):
            self.meter.expect(1, remote.size or 0)
            self.fetch(remote)
            if why := self.missing.get(remote.path):
                raise UserError(f"{why}: without it {self.name} can't be fetched")

    def files(self, wanted: Iterable[Remote]) -> None:
        """Fetch what is not there. What the owner does not have is noted in `missing`."""
        at = {remote.path: remote for remote in wanted}
        new = {path: at[path] for path in self.lacking(at)}
        transfer.room(self.root, sum(r.size or 0 for r in new.values()))
        known = [r.size for r in new.values() if r.size is not None]
        self.meter.expect(len(new), sum(known) * len(new) // len(known) if known else 0)
        self.each(new.values(), self.fetch)

    def fetch(self, remote: Remote) -> None:
        """Fetch one file."""
        try:
            if not self._adopted(remote):
                sha256, checked = transfer.fetch(self.root, remote, self.patience, self.tell)
                self.ledger.add(remote.path, sha256, remote.origin, str(checked or ""))
        except Missing as error:
            self.miss(remote.path, str(error))
        except Passing as error:
            raise Unreachable(f"{error}, after {self.patience.retries} attempts. Start again to go on where it stopped") from None
        self.meter.done()

    def _adopted(self, remote: Remote) -> bool:
        """Whether a file is there that nobody noted, the user's own or one that a kill left: checked, it is taken."""
        place = self.root / remote.path
        if not place.is_file():
            return False
        sha256 = files.sha256(place)
        if remote.size is not None and place.stat().st_size != remote.size:
            wrong = f"has {place.stat().st_size} bytes, the owner's {remote.size}"
        elif remote.checksum and remote.checksum.digest != transfer.digest(place, remote.checksum.algorithm):
            wrong = f"has another {remote.checksum.algorithm} than the owner states"
        else:
            self.ledger.add(remote.path, sha256, remote.origin, str(remote.checksum or ""))
            self.tell(place.stat().st_size)
            return True
        raise UserError(f"{place} {wrong}: move it away to have it fetched")

    def keep(self, path: str, chunks: Iterable[bytes], origin: str) -> None:
        """Put a file in its place whose bytes came out of an archive."""
        place = self.root / safe(path)
        sha256 = hashlib.sha256()
        temporary = self._aside / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.member"
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    sha256.update(chunk)
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        self.ledger.add(path, sha256.hexdigest(), origin)

    def archive(self, remote: Remote, want: Callable[[str], str | None]) -> None:
        """Fetch a zip or tar, take out the members that `want` gives a place, and delete it; at most once."""
        if self.ledger.finished(remote.origin, f"{remote.origin}!"):
            return
        path = f"{files.ASIDE}/{remote.path}"
        transfer.room(self.root, 2 * (remote.size or 0))  # itself, and what comes out of it
        self.aside(replace(remote, path=path))
        taken = 0
        log.info("%s: taking files out of %s", self.name, remote.path)
        try:
            for place, content in archives.chosen(archives.members(self.root / path), want):
                if not self.has(place):
                    self.keep(place, archives.chunks(content), f"{remote.origin}!{place}")
                taken += 1
        except (archives.Damaged, UserError) as error:
            raise UserError(f"{remote.origin}: {error}") from None
        if not taken:
            raise UserError(f"{remote.origin}: holds none of the files that {self.name} is read from")
        self.ledger.finish(remote.origin)
        (self.root / path).unlink()

    def tell(self, count: int) -> None:
        """Count bytes that came; ends the work that called it where all is to end."""
        if self.patience.over.is_set():
            raise Stopped
        self.meter.tell(count)

    def miss(self, path: str, why: str) -> None:
        """Note that the owner does not have a file."""
        self.wanted.add(path)
        self.missing[path] = why
        self.ledger.miss(path, why)

    def each(self, items: Iterable[T], do: Callable[[T], None]) -> None:
        """Do something with every item, several at once; the first that fails ends it, and what has come of others is kept."""
        with ThreadPoolExecutor(self.parallel) as pool:
            waiting: set[Future[None]] = set()
            try:
                for item in items:
                    waiting.add(pool.submit(do, item))
                    if len(waiting) >= 64 * self.parallel:
                        done, waiting = wait(waiting, return_when="FIRST_COMPLETED")
                        for future in done:
                            future.result()
                done, waiting = wait(waiting, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self.patience.over.set()
                for future in waiting:
                    future.cancel()
                raise

    def complete(self, limit: int | None) -> None:
        """Note that all is there for so many patients."""
        self.ledger.finish(complete(limit))

    def check(self, limit: float) -> None:
        """Raise UserError where more than the share `limit` of what was wanted is missing at the owner's."""
        if len(self.missing) > limit * len(self.wanted):
            shown = [f"\n  {path}: {why}" for path, why in sorted(self.missing.items())[:5]]
            more = f"\n  and {len(self.missing) - 5} more, all in {self.ledger.path}" if len(self.missing) > 5 else ""
            raise UserError(
                f"{self.name}: {len(self.missing)} of {len(self.wanted)} files are missing at the owner's, more than the share"
                f" {limit:g} that max_missing allows{''.join(shown)}{more}"
            )

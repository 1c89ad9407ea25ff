"""A source's folder while it is being filled: what is wanted is fetched, many files at once, and what is there stays."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout

from medmim.common import archives, files
from medmim.common.errors import UserError
from medmim.config.download import DownloadSettings
from medmim.download import transfer
from medmim.download.errors import NotFoundError, TransientError, UnreachableError
from medmim.download.estimate import Estimate
from medmim.download.ledger import Ledger
from medmim.download.progress import ProgressMeter
from medmim.download.transfer import RemoteFile, RetryPolicy

log = logging.getLogger("medmim")
T = TypeVar("T")
MAX_PAGE_BYTES = 1 << 20
"""Above this a file is no page."""


def check_destination(path: str) -> str:
    """`path` if it stays in its folder, which servers and tables of others name. Raises UserError."""
    if not files.is_inside_folder(path) or PurePosixPath(path).parts[0] == files.DOWNLOAD_FOLDER:
        raise UserError(f"{path!r} is not a path below the source's folder")
    return path


def make_completion_key(limit: int | None) -> str:
    """What a ledger says of a source that is there for so many patients."""
    return "all" if limit is None else f"all of {limit} patients"


class DownloadStoppedError(Exception):
    """The work of one thread, as that of another failed."""


class DownloadFolder:
    """One source's folder, held by this process alone; a context. `missing` grows with what the owner does not have."""

    def __init__(self, name: str, root: Path, retry_policy: RetryPolicy | None = None, parallel: int = 4) -> None:
        self.name, self.root, self.parallel = name, root, parallel
        self.retry_policy = replace(retry_policy or RetryPolicy(), stop_event=threading.Event())
        self.wanted_paths: set[str] = set()
        """Paths of the files that were asked for."""
        self.missing: dict[str, str] = {}
        self._temporary_folder = root / files.DOWNLOAD_FOLDER
        self._temporary_folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._temporary_folder / "lock", timeout=0)
        self.meter = ProgressMeter(name)

    def __enter__(self) -> "DownloadFolder":
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"{self.root}: another download into this folder is at work: wait for it, or stop it") from None
        self.ledger = Ledger(self.root)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._lock.release()

    def call_with_retries(self, request: Callable[[], T]) -> T:
        """An answer of a server, asked again while its faults may pass."""
        try:
            return self.retry_policy.call(request)
        except TransientError as error:
            raise UnreachableError(f"{error}, after {self.retry_policy.retries} attempts") from None

    def has_file(self, path: str) -> bool:
        """Whether a file is there as it was fetched, and no page that a server sent in its place."""
        return self.ledger.has_file(path) and not self._is_kept_page(path)

    def _is_kept_page(self, path: str) -> bool:
        """Whether a file that no checksum vouches for is a page: those that were fetched before pages were refused."""
        is_suspect = not self.ledger.has_checksum(path) and (self.root / path).stat().st_size <= MAX_PAGE_BYTES
        return is_suspect and bool(transfer.describe_page(self.root / path, path))

    def fetch_required(self, remote: RemoteFile) -> Path:
        """A file without which there is no going on, fetched if it is not there. Raises UserError where the owner has it not."""
        self.fetch_files([remote])
        if reason := self.missing.get(remote.path):
            raise UserError(f"{reason}: without it {self.name} can't be fetched")
        return self.root / remote.path

    def find_absent_files(self, paths: Iterable[str]) -> list[str]:
        """Those of the wanted paths whose files are not there yet, once each."""
        absent_paths: dict[str, None] = {}
        for path in paths:
            self.wanted_paths.add(path)
            try:
                if not self.has_file(check_destination(path)):
                    absent_paths[path] = None
            except UserError as error:  # one bad row of a table is no reason to fetch nothing
                self.missing[path] = str(error)
        return list(absent_paths)

    def fetch_auxiliary(self, remote: RemoteFile) -> None:
        """Fetch a file of use for the download only. Raises UserError where the owner has it not."""
        if not self.has_file(remote.path):
            self.meter.add_expected(1, remote.size or 0)
            self.fetch_file(remote)
            if reason := self.missing.get(remote.path):
                raise UserError(f"{reason}: without it {self.name} can't be fetched")

    def fetch_files(self, remotes: Iterable[RemoteFile]) -> None:
        """Fetch what is not there. What the owner does not have is noted in `missing`."""
        remotes_by_path = {remote.path: remote for remote in remotes}
        absent_remotes = {path: remotes_by_path[path] for path in self.find_absent_files(remotes_by_path)}
        transfer.require_disk_space(self.root, sum(r.size or 0 for r in absent_remotes.values()))
        known_sizes = [r.size for r in absent_remotes.values() if r.size is not None]
        self.meter.add_expected(
            len(absent_remotes), sum(known_sizes) * len(absent_remotes) // len(known_sizes) if known_sizes else 0
        )
        self.run_parallel(absent_remotes.values(), self.fetch_file)

    def fetch_file(self, remote: RemoteFile) -> None:
        """Fetch one file."""
        try:
            if not self._adopt_existing(remote):
                sha256, verified_checksum = transfer.fetch_file(self.root, remote, self.retry_policy, self.count_bytes)
                self.ledger.add_file(remote.path, sha256, remote.origin, str(verified_checksum or ""))
        except NotFoundError as error:
            self.mark_missing(remote.path, str(error))
        except TransientError as error:
            raise UnreachableError(
                f"{error}, after {self.retry_policy.retries} attempts. Start again to go on where it stopped"
            ) from None
        self.meter.add_file()

    def _adopt_existing(self, remote: RemoteFile) -> bool:
        """Whether a file is there that nobody noted, the user's own or one that a kill left: checked, it is taken."""
        target = self.root / remote.path
        if not target.is_file():
            return False
        page = transfer.describe_page(target, remote.path)
        if page and self.ledger.has_file(remote.path):
            log.info("%s: is %s", target, page)
            return False  # it was fetched so, and is fetched again
        sha256 = files.hash_file(target)
        if page:
            mismatch = f"is {page}"
        elif remote.size is not None and target.stat().st_size != remote.size:
            mismatch = f"has {target.stat().st_size} bytes, the owner's {remote.size}"
        elif remote.checksum and remote.checksum.digest != transfer.hash_file(target, remote.checksum.algorithm):
            mismatch = f"has another {remote.checksum.algorithm} than the owner states"
        else:
            self.ledger.add_file(remote.path, sha256, remote.origin, str(remote.checksum or ""))
            self.count_bytes(target.stat().st_size)
            return True
        raise UserError(f"{target} {mismatch}: move it away to have it fetched")

    def store_member(self, path: str, chunks: Iterable[bytes], origin: str) -> None:
        """Put a file in its place whose bytes came out of an archive."""
        target = self.root / check_destination(path)
        sha256 = hashlib.sha256()
        temporary = self._temporary_folder / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.member"
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    sha256.update(chunk)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        self.ledger.add_file(path, sha256.hexdigest(), origin)

    def fetch_archive(self, remote: RemoteFile, get_destination: Callable[[str], str | None]) -> None:
        """Fetch a zip or tar, take out the members that `get_destination` gives a place, and delete it; at most once."""
        if self.ledger.is_done(remote.origin, f"{remote.origin}!"):
            return
        path = f"{files.DOWNLOAD_FOLDER}/{remote.path}"
        transfer.require_disk_space(self.root, 2 * (remote.size or 0))  # itself, and what comes out of it
        self.fetch_auxiliary(replace(remote, path=path))
        member_count = 0
        log.info("%s: taking files out of %s", self.name, remote.path)
        try:
            for destination, content in archives.select_members(archives.iter_members(self.root / path), get_destination):
                if not self.has_file(destination):
                    self.store_member(destination, archives.iter_chunks(content), f"{remote.origin}!{destination}")
                member_count += 1
        except (archives.DamagedArchiveError, UserError) as error:
            raise UserError(f"{remote.origin}: {error}") from None
        if not member_count:
            raise UserError(f"{remote.origin}: holds none of the files that {self.name} is read from")
        self.ledger.mark_done(remote.origin)
        (self.root / path).unlink()

    def count_bytes(self, count: int) -> None:
        """Count bytes that came; ends the work that called it where all is to end."""
        if self.retry_policy.stop_event.is_set():
            raise DownloadStoppedError
        self.meter.add_bytes(count)

    def mark_missing(self, path: str, reason: str) -> None:
        """Note that the owner does not have a file."""
        self.wanted_paths.add(path)
        self.missing[path] = reason
        self.ledger.add_missing(path, reason)

    def run_parallel(self, items: Iterable[T], process_item: Callable[[T], None]) -> None:
        """Do something with every item, several at once; the first that fails ends it, and what has come of others is kept."""
        with ThreadPoolExecutor(self.parallel) as pool:
            pending: set[Future[None]] = set()
            try:
                for item in items:
                    pending.add(pool.submit(process_item, item))
                    if len(pending) >= 64 * self.parallel:
                        done, pending = wait(pending, return_when="FIRST_COMPLETED")
                        for future in done:
                            future.result()
                done, pending = wait(pending, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self.retry_policy.stop_event.set()
                for future in pending:
                    future.cancel()
                raise

    def mark_complete(self, limit: int | None) -> None:
        """Note that all is there for so many patients."""
        self.ledger.mark_done(make_completion_key(limit))

    def check_missing_share(self, max_share: float) -> None:
        """Raise UserError where more than the share `max_share` of what was wanted is missing at the owner's."""
        if len(self.missing) > max_share * len(self.wanted_paths):
            examples = [f"\n  {path}: {why}" for path, why in sorted(self.missing.items())[:5]]
            remainder_note = f"\n  and {len(self.missing) - 5} more, all in {self.ledger.path}" if len(self.missing) > 5 else ""
            raise UserError(
                f"{self.name}: {len(self.missing)} of {len(self.wanted_paths)} files are missing at the owner's, more than "
                "the share"
                f" {max_share:g} that max_missing allows{''.join(examples)}{remainder_note}"
            )


class SourceDownload(Protocol):
    """What a source's download.py offers."""

    def fetch_source(self, folder: DownloadFolder, settings: DownloadSettings, limit: int | None) -> None:
        """Fetch what the adapter reads of so many patients, of all where limit is None, and is not in the folder."""

    def locate_credentials(self, settings: DownloadSettings) -> str | None:
        """Say where the user's credentials are; empty where there are none, None where none is needed."""

    def estimate_size(self, settings: DownloadSettings, limit: int | None) -> Estimate:
        """Ask the server how much there is to fetch. Raises AccessDeniedError, TransientError, UserError."""

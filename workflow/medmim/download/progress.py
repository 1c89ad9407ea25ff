"""How far a download is: a bar on a terminal, elsewhere a line now and then."""

import logging
import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

log = logging.getLogger("medmim")
LOG_INTERVAL_SECONDS = 60.0
"""Seconds between lines."""


class ProgressMeter:
    """Counts bytes and files of one download; a context. Threads may count at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.received_bytes = self.received_files = 0
        self.total_bytes, self.total_files = 0, 0
        self._lock = threading.Lock()
        self._start_time = self._last_log_time = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> "ProgressMeter":
        if sys.stderr.isatty():
            text = TextColumn("{task.description}"), TextColumn("{task.fields[files]}/{task.fields[of]} files")
            columns = text[0], BarColumn(), DownloadColumn(), TransferSpeedColumn(), text[1], TimeRemainingColumn()
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(self.name, total=None, files=0, of=0)
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress:
            self._progress.stop()

    def add_expected(self, files: int, size: int) -> None:
        """Say what more is to come; `size` 0 where nobody knows."""
        with self._lock:
            self.total_files += files
            self.total_bytes += size

    def add_bytes(self, count: int) -> None:
        """Count bytes."""
        with self._lock:
            self.received_bytes += count
            self._show_progress()

    def add_file(self) -> None:
        """Count a file."""
        with self._lock:
            self.received_files += 1
            self._show_progress()

    def _show_progress(self) -> None:
        if self._progress:
            total = max(self.total_bytes, self.received_bytes) if self.total_bytes else None
            self._progress.update(
                self._task, completed=self.received_bytes, total=total, files=self.received_files, of=self.total_files
            )
        elif time.monotonic() - self._last_log_time > LOG_INTERVAL_SECONDS:
            self._last_log_time = time.monotonic()
            log.info("%s", self.format_progress())

    def format_progress(self) -> str:
        """How far it is, in a line."""
        text = f"{self.name}: {decimal(self.received_bytes)}" + (f" of {decimal(self.total_bytes)}" if self.total_bytes else "")
        text += f", {self.received_files} of {self.total_files} files"
        share = self.received_bytes / self.total_bytes if self.total_bytes else self.received_files / max(self.total_files, 1)
        if 0 < share < 1:
            minutes = (time.monotonic() - self._start_time) * (1 - share) / share / 60
            text += f", about {minutes / 60:.1f} h left" if minutes > 90 else f", about {minutes:.0f} min left"
        return text

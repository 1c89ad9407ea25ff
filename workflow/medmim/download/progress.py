"""How far a download is."""

import threading

from medmim.common.formatting import format_bytes
from medmim.common.progress import ProgressLog


class ProgressMeter:
    """Counts bytes and files of one download. Threads may count at once."""

    def __init__(self, name: str) -> None:
        self.received_bytes = self.received_files = 0
        self.total_bytes, self.total_files = 0, 0
        self._lock = threading.Lock()
        self._progress = ProgressLog(name)

    def add_expected(self, files: int, size: int) -> None:
        """Say what more is to come; `size` 0 where nobody knows."""
        with self._lock:
            self.total_files += files
            self.total_bytes += size

    def add_bytes(self, count: int) -> None:
        """Count bytes."""
        with self._lock:
            self.received_bytes += count
            self._report_progress()

    def add_file(self) -> None:
        """Count a file."""
        with self._lock:
            self.received_files += 1
            self._report_progress()

    def _report_progress(self) -> None:
        size = f"{format_bytes(self.received_bytes)}" + (f" of {format_bytes(self.total_bytes)}" if self.total_bytes else "")
        share = self.received_bytes / self.total_bytes if self.total_bytes else self.received_files / max(self.total_files, 1)
        self._progress.report(min(share, 1.0), f"{size}, {self.received_files} of {self.total_files} files")

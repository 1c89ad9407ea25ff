"""Hashes of files as they become known, kept in a file: a job that was killed, or runs again, hashes only what has changed.

Each line is JSON: path, stamp (as medmim.common.watched_paths.stamp_path gives it), sha256. Of several lines about one path the
last counts; a line that a kill cut off is none.
"""

import json
import threading
import time
from pathlib import Path

from medmim.common import files
from medmim.common.outside_files import translate_read_errors

SETTLE_SECONDS = 2.0
"""Seconds after which the time of a file's last change tells it from the next on any file system."""


class HashMemory:
    """The hashes of one folder's files, in the file `store`; threads may hash at once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._hashes: dict[str, tuple[str, str]] = {}
        if store.is_file():
            for line in store.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    path, stamp, sha256 = json.loads(line)
                except (ValueError, TypeError):
                    continue
                self._hashes[path] = (stamp, sha256)

    def hash_file(self, root: Path, path: str, stamp: str) -> str:
        """sha256 of a file below a folder, read only where it is not known of this stamp. Raises UserError naming it."""
        known_stamp, sha256 = self._hashes.get(path, ("", ""))
        if known_stamp == stamp:
            return sha256
        with translate_read_errors(root / path):
            sha256 = files.hash_file(root / path)
        if time.time() - int(stamp.split()[2]) / 1e9 > SETTLE_SECONDS:
            self._add_hash(path, stamp, sha256)
        return sha256

    def _add_hash(self, path: str, stamp: str, sha256: str) -> None:
        line = json.dumps((path, stamp, sha256)) + "\n"
        with self._lock:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            with self._store.open("a", encoding="utf-8") as file:
                file.write(line)

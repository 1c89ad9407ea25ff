"""What is known of a downloaded source's files: lines of JSON in its folder, each written when its file was whole in its place.

    {"path", "bytes", "mtime_ns", "sha256", "origin", "checksum"}   origin: its URL without a query; checksum: what the owner
                                                                    states and was found true, "md5:…" or "sha256:…", or ""
    {"path", "missing"}                                             why the owner does not have it
    {"done"}                                                        what is not to be done again, in words
Of several lines about one path the last counts; a line that a kill cut off is none.
"""

import json
import threading
from pathlib import Path
from typing import Any

from medmim.common.files import ASIDE


class Ledger:
    """The lines of one folder; threads may write at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / ASIDE / "ledger.jsonl"
        self._lock = threading.Lock()
        self._files: dict[str, dict[str, Any]] = {}
        self._missing: dict[str, str] = {}
        self._done: set[str] = set()
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue

    def _take(self, told: dict[str, Any]) -> None:
        if "done" in told:
            self._done.add(told["done"])
        elif "missing" in told:
            self._missing[told["path"]] = told["missing"]
        else:
            self._files[told["path"]] = told
            self._missing.pop(told["path"], None)

    def _add(self, told: dict[str, Any]) -> None:
        with self._lock:
            self._take(told)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")

    def add(self, path: str, sha256: str, origin: str, checksum: str = "") -> None:
        """Note a file that is in its place."""
        stat = (self.root / path).stat()
        told = {"path": path, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
        self._add({**told, "origin": origin, "checksum": checksum})

    def miss(self, path: str, why: str) -> None:
        """Note a file that the owner does not have."""
        if self._missing.get(path) != why:
            self._add({"path": path, "missing": why})

    def finish(self, what: str) -> None:
        """Note that something is done for good, as long as the files are there."""
        if what not in self._done:
            self._add({"done": what})

    def finished(self, what: str, origin: str = "") -> bool:
        """Whether something was done, and all files that were noted, of one origin or of any, are there."""
        return what in self._done and self._intact(origin)

    def known(self, path: Path) -> str | None:
        """sha256 of a file below the folder, if it is as it was when it was noted."""
        told = self._files.get(path.relative_to(self.root).as_posix())
        if told is None:
            return None
        try:
            stat = path.stat()
        except OSError:
            return None
        return str(told["sha256"]) if (stat.st_size, stat.st_mtime_ns) == (told["bytes"], told["mtime_ns"]) else None

    def holds(self, path: str) -> bool:
        """Whether a file is there as it was noted."""
        return self.known(self.root / path) is not None

    def _intact(self, origin: str) -> bool:
        """Those of use for the download only may be gone."""
        told = (path for path, line in self._files.items() if line["origin"].startswith(origin))
        return all(self.holds(path) for path in told if not path.startswith(f"{ASIDE}/"))

    def bytes(self) -> int:
        """Size of all that was noted."""
        return sum(told["bytes"] for told in self._files.values())

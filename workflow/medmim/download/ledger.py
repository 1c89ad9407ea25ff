"""What is known of a downloaded source's files: lines of JSON in its folder, each written when its file was whole in its place.

    {"path", "bytes", "mtime_ns", "ctime_ns", "sha256",             origin: its URL without a query; checksum: what the owner
     "origin", "checksum"}                                          states and was found true, "md5:…" or "sha256:…", or ""
    {"path", "missing"}                                             why the owner does not have it
    {"done"}                                                        what is not to be done again, in words
Of several lines about one path the last counts; a line that a kill cut off is none.
"""

import json
import threading
from pathlib import Path
from typing import Any

from medmim.common.files import DOWNLOAD_FOLDER, hash_file


def _stamp_file(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}


class Ledger:
    """The lines of one folder; threads may write at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / DOWNLOAD_FOLDER / "ledger.jsonl"
        self._lock = threading.Lock()
        self._files: dict[str, dict[str, Any]] = {}
        self._missing: dict[str, str] = {}
        self._done: set[str] = set()
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").split("\n"):
                try:
                    self._apply_entry(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue

    def _apply_entry(self, entry: dict[str, Any]) -> None:
        if "done" in entry:
            self._done.add(entry["done"])
        elif "missing" in entry:
            self._missing[entry["path"]] = entry["missing"]
        else:
            self._files[entry["path"]] = entry
            self._missing.pop(entry["path"], None)

    def _append_entry(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self._apply_entry(entry)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def add_file(self, path: str, sha256: str, origin: str, checksum: str = "") -> None:
        """Note a file that is in its place."""
        entry = {"path": path, **_stamp_file(self.root / path), "sha256": sha256}
        self._append_entry({**entry, "origin": origin, "checksum": checksum})

    def add_missing(self, path: str, reason: str) -> None:
        """Note a file that the owner does not have."""
        if self._missing.get(path) != reason:
            self._append_entry({"path": path, "missing": reason})

    def mark_done(self, key: str) -> None:
        """Note that something is done for good, as long as the files are there."""
        if key not in self._done:
            self._append_entry({"done": key})

    def is_done(self, key: str, origin: str = "") -> bool:
        """Whether something was done, and all files that were noted, of one origin or of any, are there."""
        return key in self._done and self._has_all_files(origin)

    def find_hash(self, path: Path) -> str | None:
        """sha256 of a file below the folder, if it is as it was when it was noted.

        One whose inode alone has changed since, as by a write that kept its time, or by a link, is hashed and noted again.
        """
        entry = self._files.get(path.relative_to(self.root).as_posix())
        if entry is None:
            return None
        try:
            stamp = _stamp_file(path)
        except OSError:
            return None
        if any(stamp[name] != entry[name] for name in ("bytes", "mtime_ns")):
            return None
        if stamp["ctime_ns"] != entry.get("ctime_ns"):
            if hash_file(path) != entry["sha256"]:
                return None
            self._append_entry(entry | stamp)
        return str(entry["sha256"])

    def has_file(self, path: str) -> bool:
        """Whether a file is there as it was noted."""
        return self.find_hash(self.root / path) is not None

    def has_checksum(self, path: str) -> bool:
        """Whether a file was found to have the checksum that its owner states."""
        return bool(self._files.get(path, {}).get("checksum"))

    def _has_all_files(self, origin: str) -> bool:
        """Those of use for the download only may be gone."""
        paths = (path for path, line in self._files.items() if line["origin"].startswith(origin))
        return all(self.has_file(path) for path in paths if not path.startswith(f"{DOWNLOAD_FOLDER}/"))

    def count_bytes(self) -> int:
        """Size of all that was noted."""
        return sum(told["bytes"] for told in self._files.values())

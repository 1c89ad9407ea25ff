"""Replies as they come, so that a run that is killed repeats nothing: JSON lines, appended by each process to its own file.

Keys are hex digests of all that a reply depends on, so what an earlier or another run has left is always right. A line that
was being written when its process was killed is passed over. No lock is needed, on any file system.
"""

import json
import os
import platform
import uuid
from pathlib import Path
from typing import IO, Any


class ReplyStore:
    """The replies below a folder, those of other processes as they were when this one began. A context: closes its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[bytes] | None = None
        self._values: dict[str, Any] = {}
        for path in sorted(folder.glob("*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                try:
                    entry = json.loads(line)
                    self._values.setdefault(entry["key"], entry["value"])
                except (ValueError, KeyError, TypeError):  # torn, or the nothing after the last line
                    continue

    def __enter__(self) -> "ReplyStore":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> Any:
        """The value kept under a key, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold; it is on the disk when this returns."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
            self._file = (self.folder / name).open("ab")
        self._file.write(json.dumps({"key": key, "value": value}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._values[key] = value

"""Replies as they come, and batches that are on their way, so that a run that is killed repeats and pays nothing twice.

JSON lines in a folder that outlives runs, appended by each process to a file of its own: no lock is needed, on any file system.
Keys are hex digests of all that a reply depends on, so what an earlier or another run has left is always right. A line that was
being written when its process was killed is passed over. No credential is in it: requests are there by their digest alone.

    {"key", "value"}           a reply
    {"batch", "url"}           a batch that is about to be made, by our name of it
    {"batch", "id"}            the service has it, under this id
    {"batch", "replies"}       it is over, and these are its replies by key: one line, so both are kept or neither

A file <folder>.sqlite, in which earlier versions kept the replies that were paid for, is read too.
"""

import json
import os
import platform
import sqlite3
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from medmim.common.errors import UserError

REFRESH_SECONDS = 1.0
"""Least time between two looks at what other processes have written meanwhile."""


class ReplyStore:
    """The replies below a folder, those of other processes included. A context: closes its file."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the folder is a file, or the file of an earlier version can't be read."""
        if folder.is_file():
            raise UserError(f"{folder} is a file, but replies are kept in a folder: move it away, or name another folder")
        self.folder = folder
        self._file: IO[bytes] | None = None
        self._values: dict[str, Any] = {}
        self._batch_urls: dict[str, str] = {}
        self._batch_ids: dict[str, str] = {}
        self._ended_batches: set[str] = set()
        self._read_bytes: dict[str, int] = {}
        self._refreshed_at = 0.0
        self._read_database(folder.with_name(f"{folder.name}.sqlite"))
        self._refresh()

    def __enter__(self) -> "ReplyStore":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, key: str) -> bool:
        if key not in self._values and time.monotonic() - self._refreshed_at >= REFRESH_SECONDS:
            self._refresh()
        return key in self._values

    def get(self, key: str) -> Any:
        """Return the value kept under a key, or None."""
        return self._values[key] if key in self else None

    def put(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold, unless there is one; it is on the disk when this returns."""
        if key not in self:
            self._append_entry({"key": key, "value": value})

    def pending_batches(self, url: str) -> dict[str, str | None]:
        """Return the ids of a service's batches by our name; None where it is not known that the batch was made."""
        self._refresh()
        names = sorted(name for name, batch_url in self._batch_urls.items() if batch_url == url)
        return {name: self._batch_ids.get(name) for name in names if name not in self._ended_batches}

    def plan_batch(self, url: str) -> str:
        """Note a batch that is about to be made, and return its name."""
        name = uuid.uuid4().hex
        self._append_entry({"batch": name, "url": url})
        return name

    def record_batch_id(self, name: str, batch_id: str) -> None:
        """Note that the service has a batch."""
        self._append_entry({"batch": name, "id": batch_id})

    def end_batch(self, name: str, replies: Mapping[str, Any]) -> None:
        """Keep the replies of a batch and forget it, both or neither."""
        self._append_entry({"batch": name, "replies": dict(replies)})

    def _append_entry(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
            self._file = (self.folder / name).open("ab")
        line = json.dumps(entry).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._apply_entry(entry)
        name = Path(self._file.name).name
        self._read_bytes[name] = self._read_bytes.get(name, 0) + len(line)

    def _apply_entry(self, entry: dict[str, Any]) -> None:
        if "key" in entry:
            self._values.setdefault(entry["key"], entry["value"])
        elif "url" in entry:
            self._batch_urls[entry["batch"]] = entry["url"]
        elif "id" in entry:
            self._batch_ids[entry["batch"]] = entry["id"]
        else:
            for key, value in entry["replies"].items():
                self._values.setdefault(key, value)
            self._ended_batches.add(entry["batch"])

    def _refresh(self) -> None:
        """Read the whole lines that were added to the folder's files since the last look."""
        for path in sorted(self.folder.glob("*.jsonl")):
            start = self._read_bytes.get(path.name, 0)
            if path.stat().st_size <= start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                lines, newline, _ = file.read().rpartition(b"\n")  # what follows is torn, or still being written
            self._read_bytes[path.name] = start + len(lines) + len(newline)
            for line in lines.split(b"\n"):
                try:
                    self._apply_entry(json.loads(line))
                except (ValueError, LookupError, TypeError, AttributeError):
                    continue
        self._refreshed_at = time.monotonic()

    def _read_database(self, path: Path) -> None:
        """Read what earlier versions kept in SQLite; nothing is written there any more."""
        if not path.is_file():
            return
        try:
            with closing(sqlite3.connect(path)) as database:
                replies = database.execute("SELECT key, value FROM replies").fetchall()
                batches = database.execute("SELECT name, url, id FROM batches").fetchall()
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{path} can't be read: {error}. It should hold replies that were paid for; where it does not, move it away"
            ) from None
        for key, value in replies:
            self._values[key] = json.loads(value)
        for name, url, batch_id in batches:
            self._batch_urls[name] = url
            if batch_id is not None:
                self._batch_ids[name] = batch_id

"""Replies that were paid for, and batches that are on their way, in an SQLite file that outlives runs.

Each reply is committed as it comes. Keys are hex digests of all that a reply depends on, so what an earlier or another run has
left is always right, and several processes may share a file. It holds no credential: requests are in it by their digest alone.
"""

import json
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from medmim.common.errors import UserError

LOCK_TIMEOUT_SECONDS = 60.0
"""Seconds to wait for another process that is writing."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, url TEXT NOT NULL, id TEXT) WITHOUT ROWID;
"""


class Replies:
    """The file at a path, made where there is none. A context: closes it. Raises UserError where it is something else."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None)  # each statement is a transaction
        try:
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise UserError(
                f"{path} can't be used to keep replies: {error}. Where no other process uses it, move it away: a new one is "
                "begun, and all is paid for anew"
            ) from None

    def __enter__(self) -> "Replies":
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def __contains__(self, key: str) -> bool:
        return self._fetch_row("SELECT 1 FROM replies WHERE key = ?", key) is not None

    def get(self, key: str) -> Any:
        """The value kept under a key, or None."""
        row = self._fetch_row("SELECT value FROM replies WHERE key = ?", key)
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold, unless there is one; it is on the disk when this returns."""
        self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, json.dumps(value)))

    def _fetch_row(self, query: str, *values: str) -> Any:
        with closing(self._db.execute(query, values)) as cursor:
            return cursor.fetchone()

    def pending_batches(self, url: str) -> dict[str, str | None]:
        """Batches on their way at a service: its id for each by our name, None where it is not known that it was made."""
        with closing(self._db.execute("SELECT name, id FROM batches WHERE url = ? ORDER BY name", (url,))) as cursor:
            return dict(cursor.fetchall())

    def plan_batch(self, url: str) -> str:
        """Name of a batch that is about to be made."""
        name = uuid.uuid4().hex
        self._db.execute("INSERT INTO batches VALUES (?, ?, NULL)", (name, url))
        return name

    def record_batch_id(self, name: str, batch_id: str) -> None:
        """Note that the service has it."""
        self._db.execute("UPDATE batches SET id = ? WHERE name = ?", (batch_id, name))

    def end_batch(self, name: str, replies: Mapping[str, Any]) -> None:
        """Keep the replies of a batch and forget it, both or neither."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for key, value in replies.items():
                self.put(key, value)
            self._db.execute("DELETE FROM batches WHERE name = ?", (name,))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

"""Plain bytes by their keys in one SQLite file, for several threads and processes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from optimize.errors import StoreFailed
from optimize.files import only_read

SECONDS = 60.0  # for which another process may keep the file to itself
MOST = 8 << 30  # bytes: beyond, the oldest tenth goes
BATCH = 500  # keys looked up in one statement
Found = TypeVar("Found")


class Kept:
    """One connection, which threads take turns on; that is far faster than any LM.

    path: None for one in memory alone. Every method raises StoreFailed where the file is damaged,
    or cannot be read or written.
    """

    def __init__(self, path: Path | None = None, most: int = MOST) -> None:
        self.path, self._most, self._lock = path, most, threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._do(lambda file: None)

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """What there is, by its key."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), BATCH):
            some = list(keys[start : start + BATCH])
            holes = ",".join("?" * len(some))
            statement = f"SELECT key, value FROM kept WHERE key IN ({holes})"
            found.update(self._do(partial(_rows, statement, some)))
        return found

    def put(self, values: Mapping[str, bytes]) -> None:
        now = int(time.time())
        rows = [(key, now, value) for key, value in values.items()]
        self._do(lambda file: file.executemany("INSERT OR REPLACE INTO kept VALUES (?,?,?)", rows))

    def count(self) -> int:
        return int(self._do(lambda file: file.execute("SELECT count(*) FROM kept").fetchone()[0]))

    def size(self) -> int:
        """Bytes on disk."""
        files = [self.path, Path(f"{self.path}-wal")] if self.path else []
        return sum(file.stat().st_size for file in files if file.is_file())

    def clear(self) -> None:
        self._do(lambda file: file.execute("DELETE FROM kept"))
        self._do(lambda file: file.execute("VACUUM"))

    def _do(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = self._opened()
                with self._connection:
                    return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            more = only_read(self.path.parent) if self.path else ""
            more = more or "If it is damaged, move it away: what it knew will be asked again."
            raise StoreFailed(f"{self.path} cannot be used: {error}. {more}") from error

    def _opened(self) -> sqlite3.Connection:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(self.path or ":memory:", timeout=SECONDS, check_same_thread=False)
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")  # the last ones may go if the machine crashes
        file.execute(
            "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, time INTEGER, value BLOB)"
        )
        if _held(file) > self._most:
            with suppress(sqlite3.OperationalError), file:  # another process is at it
                file.execute(
                    "DELETE FROM kept WHERE rowid IN "
                    "(SELECT rowid FROM kept ORDER BY rowid LIMIT (SELECT count(*) / 10 FROM kept))"
                )
        return file


def _held(file: sqlite3.Connection) -> int:
    """Bytes that are in use: what was deleted leaves room in the file, and does not shrink it."""
    pages, free, each = (
        file.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * each)


def _rows(statement: str, keys: list[str], file: sqlite3.Connection) -> list[tuple[str, bytes]]:
    return file.execute(statement, keys).fetchall()

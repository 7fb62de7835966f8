"""Vectors of texts that were embedded before: one SQLite file a project, plain numbers. Knows no
embedder.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError

BATCH = 500  # texts looked up in one statement


class VectorStore:
    """float32 vectors by embedder and text. Safe for threads, and for several processes.

    path: None for one in memory alone. Raises WorkbenchError where the file is no such store.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
            with self._file:
                self._file.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)"
                )
        except sqlite3.DatabaseError as error:
            raise WorkbenchError(
                f"The vectors' file {path} cannot be used ({error}). Move it away: what it knew "
                "will be embedded again."
            ) from error

    def get(self, embedder: str, texts: Sequence[str]) -> dict[str, Any]:
        """The vectors there are, by their texts."""
        import numpy as np

        keys = {_key(embedder, text): text for text in texts}
        found, asked = {}, list(keys)
        for start in range(0, len(asked), BATCH):
            some = asked[start : start + BATCH]
            holes = ",".join("?" * len(some))
            statement = f"SELECT key, vector FROM vectors WHERE key IN ({holes})"
            with self._lock:
                rows = self._file.execute(statement, some).fetchall()
            found.update({keys[key]: np.frombuffer(v, dtype=np.float32) for key, v in rows})
        return found

    def put(self, embedder: str, vectors: Mapping[str, Any]) -> None:
        rows = [(_key(embedder, text), vector.tobytes()) for text, vector in vectors.items()]
        with self._lock, self._file:
            self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)


def _key(embedder: str, text: str) -> bytes:
    return hashlib.sha256(f"{embedder}\0{text}".encode(errors="surrogatepass")).digest()

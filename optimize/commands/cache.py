"""What is kept of LMs' answers and embedders' vectors."""

from __future__ import annotations

from pathlib import Path

from optimize.config import state_dir
from optimize.lm import answers, vectors
from optimize.lm.kept import Kept
from optimize.stats.records import Record


class CacheRecord(Record):
    """count, bytes: of what is kept, before it is cleared."""

    what: str
    path: str
    count: int
    bytes: int


class Caches(Record):
    caches: list[CacheRecord]


def caches(root: Path, clear: bool = False) -> Caches:
    """Both caches of a project; clear: delete what they hold."""
    found = []
    for what, name in (("answers", answers.FILE), ("vectors", vectors.FILE)):
        path = state_dir(root) / name
        kept = Kept(path) if path.is_file() else None  # none is made by looking
        count, size = (kept.count(), kept.size()) if kept else (0, 0)
        found.append(CacheRecord(what=what, path=str(path), count=count, bytes=size))
        if kept and clear:
            kept.clear()
    return Caches(caches=found)

"""Local LMs of several processes take turns on the cores they share.

Each computes on all cores with threads that wait for each other at every layer; where two do so at
once, each takes many times as long as alone (docs/results.md).
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from optimize.threads import cores

SLICE = 5.0  # seconds after which a process lets others in, if there are any
log = logging.getLogger(__name__)


class Turns:
    """One process's part in it: calls side by side share a turn, which begins with the first and
    ends with the last of them.

    Fair: whoever waits for the turn holds `queue`, without which nobody else may ask for it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._queue, self._turn = (
            # one thread may give back what another one took
            FileLock(folder / name, thread_local=False)
            for name in ("queue.lock", "turn.lock")
        )
        self._changed = threading.Condition()
        self._inside, self._began = 0, 0.0
        self._held = self._asking = self._told = False

    def enter(self) -> float:
        """Wait until this process may compute. Gives the seconds that took."""
        start = time.monotonic()
        with self._changed:
            while self._asking or (self._held and self._over()):
                self._changed.wait()
            if self._held:
                self._inside += 1
                return time.monotonic() - start
            self._asking = True
        try:
            with self._queue:
                self._turn.acquire()
        finally:
            with self._changed:
                self._asking = False
                self._held = self._turn.is_locked
                self._inside += self._held
                self._began = time.monotonic()
                self._changed.notify_all()
        waited = self._began - start
        if waited > SLICE / 2 and not self._told:
            self._told = True
            log.warning("Another process asks a local LM on these cores; the two take turns.")
        return waited

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if not self._inside:
                self._turn.release()
                self._held = False
                self._changed.notify_all()

    def _over(self) -> bool:
        """Whether the turn is long enough and another process waits for it."""
        if time.monotonic() - self._began < SLICE:
            return False
        try:
            with self._queue.acquire(timeout=0):
                self._began = time.monotonic()
                return False
        except Timeout:
            return True


_lock = threading.Lock()
_turns: list[Turns] = []


def turns() -> Turns:
    """Of this process, with all others of this user that run on the same cores."""
    with _lock:
        if not _turns:
            own = hashlib.sha256(repr(sorted(cores())).encode()).hexdigest()[:8]
            user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
            _turns.append(Turns(Path(tempfile.gettempdir()) / f"optimize-turns-{user}-{own}"))
        return _turns[0]


@contextmanager
def my_turn() -> Iterator[None]:
    """A stretch of work on all cores, such as a step of training."""
    turns().enter()
    try:
        yield
    finally:
        turns().leave()

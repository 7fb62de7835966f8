"""Equal calls side by side: one of them is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class OneAtATime:
    """Of equal calls made at once the first is sent; the others wait, and find its answer cached.
    Those of an event loop do not: its thread has all of them to carry on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Any, int]] = {}

    @contextmanager
    def __call__(self, key: str) -> Iterator[None]:
        if not key:
            yield
            return
        with self._lock:
            lock, users = self._held.get(key, (threading.RLock(), 0))
            self._held[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users = self._held.pop(key)[1] - 1
                if users:
                    self._held[key] = lock, users

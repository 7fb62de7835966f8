"""How many requests an endpoint is asked at once: as many as it takes, found by trying."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from optimize import stopping

FIRST = 8  # requests at once, before anything is known
TICK = 0.2  # seconds between two looks at whether the command is to stop


class Limiter:
    """Twice as many each time that as many were answered, until the endpoint first says that it is
    too much; then half, and one more each time: additive increase, multiplicative decrease (Chiu
    and Jain, 1989), as congestion is met on networks. Shared by all threads.
    """

    def __init__(self) -> None:
        self.limit = FIRST
        self._changed = threading.Condition()
        self._inside = self._answered = 0
        self._refused = False
        self._halved = self._until = 0.0

    @contextmanager
    def slot(self) -> Iterator[float]:
        """Waits until a request may go; gives the time at which it does."""
        with self._changed:
            while self._inside >= self.limit or time.monotonic() < self._until:
                self._changed.wait(TICK)
                stopping.wait(0)
            self._inside += 1
        try:
            yield time.monotonic()
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        with self._changed:
            self._answered += 1
            if self._answered >= self.limit and self._inside >= self.limit:
                self.limit = self.limit + 1 if self._refused else 2 * self.limit
                self._answered = 0
                self._changed.notify_all()

    def refused(self, sent: float, pause: float) -> None:
        """The endpoint says that a request sent then was too much, and to wait so many seconds."""
        with self._changed:
            self._until = max(self._until, time.monotonic() + pause)
            if sent > self._halved:  # those sent before have been answered for
                self.limit = max(1, self.limit // 2)
                self._refused, self._answered, self._halved = True, 0, time.monotonic()


_limiters: dict[str, Limiter] = {}
_lock = threading.Lock()


def limiter_of(model: str) -> Limiter:
    """The one of all LMs of that DSPy model string, which names the endpoint."""
    with _lock:
        return _limiters.setdefault(model, Limiter())

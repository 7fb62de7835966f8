"""How many requests an endpoint is asked at once: as many as it takes, found by trying."""

from __future__ import annotations

FIRST = 8  # requests at once, before anything is known


class Limiter:
    """Twice as many each time that as many were answered, until the endpoint first says that it is
    too much; then half, and one more each time: additive increase, multiplicative decrease (Chiu
    and Jain, 1989), as congestion is met on networks. Whoever shares it holds a lock; times are
    those of time.monotonic().
    """

    def __init__(self) -> None:
        self.limit = FIRST
        self.inside = 0  # requests under way
        self._answered = 0
        self._refused = False
        self._halved = self._until = 0.0

    def room(self, now: float) -> bool:
        """Whether a request may go."""
        return self.inside < self.limit and now >= self._until

    def answered(self) -> None:
        """A request that is still inside was answered."""
        self._answered += 1
        if self._answered >= self.limit and self.inside >= self.limit:
            self.limit = self.limit + 1 if self._refused else 2 * self.limit
            self._answered = 0

    def refused(self, sent: float, now: float, pause: float) -> None:
        """The endpoint says that a request sent then was too much, and to wait so many seconds."""
        self._until = max(self._until, now + pause)
        if sent > self._halved:  # those sent before have been answered for
            self.limit = max(1, self.limit // 2)
            self._refused, self._answered, self._halved = True, 0, now

"""The endpoints of an LM, and which of them takes the next request. Knows no LM and no HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from optimize import stopping
from optimize.lm.addresses import Address
from optimize.lm.limiter import Limiter

TICK = 0.2  # seconds between two looks at whether the command is to stop
IN_A_ROW = 3  # requests without an answer, after which an endpoint is left out for a while
FIRST_REST, LAST_REST = 1.0, 30.0  # seconds for which it is, twice as long each time
MOST_RESTS = 10  # that make one longer


@dataclass(eq=False)
class Endpoint:
    """address: None where the LM has one alone and knows it. rests: how often in a row it was left
    out, from `since` to `until` by time.monotonic(); then one request at a time is tried there,
    until one is answered.
    """

    address: Address | None = None
    limiter: Limiter = field(default_factory=Limiter)
    sent: int = 0
    unanswered: int = 0
    rests: int = 0
    since: float = 0.0
    until: float = 0.0

    def up(self, now: float) -> bool:
        return now >= self.until and not (self.rests and self.limiter.inside)

    def rest(self, now: float, pause: float = 0.0) -> None:
        seconds = min(LAST_REST, FIRST_REST * 2.0 ** min(self.rests, MOST_RESTS))
        self.since, self.until = now, now + max(seconds, pause)
        self.rests, self.unanswered = self.rests + 1, 0


class Pool:
    """Least busy first: the fewest requests under way, among endpoints that answer and are not at
    their limit. Shared by all threads.
    """

    def __init__(self, places: Sequence[Address | None] = (None,)) -> None:
        self.endpoints = [Endpoint(address) for address in places]
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, patient: bool = True) -> Iterator[Slot]:
        """An endpoint for one request, waited for where `patient`."""
        tried = _call.get().tried
        with self._changed:
            while not (chosen := self._chosen(tried, patient)):
                self._changed.wait(TICK)
                stopping.wait(0)
            chosen.limiter.inside += 1
            chosen.sent += 1
        tried.add(chosen)
        found = Slot(self, chosen, time.monotonic())
        try:
            yield found
        finally:
            with self._changed:
                chosen.limiter.inside -= 1
                self._changed.notify_all()

    def untried(self, tried: set[Endpoint]) -> bool:
        """Whether there is another endpoint than these that is up."""
        now = time.monotonic()
        with self._changed:
            return any(e.up(now) and e not in tried for e in self.endpoints)

    def _chosen(self, tried: set[Endpoint], patient: bool) -> Endpoint | None:
        now = time.monotonic()
        up = [e for e in self.endpoints if e.up(now)]
        # where all are down, the next one to be tried anyway: no call waits for ever
        choice = [e for e in up if e not in tried] or up
        choice = choice or [min(self.endpoints, key=lambda e: e.until)]
        free = [e for e in choice if e.limiter.room(now)] if patient else choice
        return min(free, key=lambda e: (e.limiter.inside, e.sent), default=None)

    def answered(self, endpoint: Endpoint) -> None:
        _call.get().tried.clear()
        with self._changed:
            endpoint.unanswered = endpoint.rests = 0
            endpoint.until = 0.0
            endpoint.limiter.answered()
            self._changed.notify_all()

    def failed(self, slot: Slot, too_much: bool, pause: float) -> None:
        """A request brought no answer. too_much: the endpoint was asked too much, and wants a pause
        of so many seconds.
        """
        endpoint, now = slot.endpoint, time.monotonic()
        with self._changed:
            if slot.sent < endpoint.since:  # what it says is known since
                return
            if too_much:
                lowest = endpoint.limiter.limit == 1
                endpoint.limiter.refused(slot.sent, now, pause)
                if lowest:
                    endpoint.rest(now, pause)
                return
            endpoint.unanswered += 1
            if endpoint.unanswered >= IN_A_ROW or endpoint.rests:
                endpoint.rest(now)


@dataclass(frozen=True)
class Slot:
    """A request's place at an endpoint. sent: when, by time.monotonic()."""

    pool: Pool
    endpoint: Endpoint
    sent: float


@dataclass(frozen=True)
class _Call:
    """model: of whom it is. tried: endpoints that it has met without an answer."""

    model: str
    tried: set[Endpoint] = field(default_factory=set)


_call: ContextVar[_Call] = ContextVar("call")
_pools: dict[str, Pool] = {}
_lock = threading.Lock()


@contextmanager
def one_call(model: str) -> Iterator[None]:
    """Within, in this thread or task, each further request of a call goes to another endpoint
    first.
    """
    token = _call.set(_Call(model))
    try:
        yield
    finally:
        _call.reset(token)


def elsewhere() -> bool:
    """Whether the call under way, if there is one, may go on at another endpoint at once."""
    call = _call.get(None)
    return call is not None and bool(call.tried) and pool_of(call.model).untried(call.tried)


def pool_of(model: str) -> Pool:
    """The one of all LMs of that DSPy model string."""
    with _lock:
        return _pools.setdefault(model, Pool())


def declare_pool(model: str, places: Sequence[Address]) -> None:
    """Say where the LM of that DSPy model string is served. What is known of them is kept."""
    with _lock:
        known = _pools.get(model)
        if not known or [e.address for e in known.endpoints] != list(places):
            _pools[model] = Pool(places)

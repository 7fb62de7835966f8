"""Calls, tokens and money counted, and the caps on them. Knows one call at a time, never what it is
for.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from optimize.errors import BudgetExhausted, ShareExhausted
from optimize.lm.dspy_door import carried, carrying
from optimize.lm.limits import NOTHING, Limits, Purse, Spent
from optimize.lm.usage import Usage
from optimize.stopping import wait

# what an LM is asked for; other: by a program or a module of the user's, with an LM of its own
Role = Literal["task", "teacher", "judge", "other"]
NONE = Limits()
TICK = 0.2  # seconds between two looks at whether the command is to stop
KNOWN = 8  # answers after the first, from which it is known how long one takes


def _nothing() -> Spent:
    return NOTHING


@dataclass
class _Share:
    """Calls that a stretch of work may ask a meter for. DSPy hands it to every thread it starts:
    what an optimizer has left running in the background when it was stopped knows by it that it is
    over."""

    meter: Meter
    calls: int
    end: int
    told: Callable[[int, int], None]
    over: bool = False


class Meter:
    """Counts for all LMs of a run, under threads, and the caps: none is sent once one is reached.

    That of calls is exact. Tokens and money are known when a call is answered: near their cap a
    request waits for those in flight, so that a few calls at most go beyond. purse: what other runs
    draw on as well; none of it is planned with.
    """

    def __init__(self, max_calls: int, limits: Limits = NONE, purse: Purse | None = None) -> None:
        self.max_calls, self.limits, self.purse = max_calls, limits, purse
        self._began: float | None = None  # the clock
        self._lock = threading.RLock()  # what is kept back asks for averages
        self._ended = threading.Condition(self._lock)  # a request has
        self._flying = 0  # requests under way
        self._numbers: dict[str, Any] = {f.name: 0 for f in fields(Usage) if f.name != "latencies"}
        self._latencies: list[float] = []
        self._first_answer = 0.0
        self._idle = 0.0  # seconds of it in which no request was asked for
        self._keys: set[str] = set()
        self._parts: dict[Role, Meter] = {}
        self._expected, self._weight = NOTHING, 0.0
        self._kept: Callable[[], Spent] = _nothing
        self._kept_calls = 0

    def __deepcopy__(self, memo: object) -> Meter:
        return self  # an optimizer's copy of an LM still spends from the same purse

    def usage(self) -> Usage:
        with self._lock:
            return Usage(**self._numbers, latencies=tuple(self._latencies))

    def by_role(self) -> dict[Role, Usage]:
        """The same, apart for each role that an LM was asked in."""
        with self._lock:
            parts = dict(self._parts)
        return {role: part.usage() for role, part in parts.items()}

    def part(self, role: Role) -> Meter:
        """What counts the calls of one role, with no cap of its own."""
        with self._lock:
            return self._parts.setdefault(role, Summing())

    def remaining(self, kept: int = 0, taking: Spent = NOTHING) -> int:
        """Calls left under the caps, once so many that take so much have been kept back. A call
        that the cache answers counts when it is the first of its kind, so that a run from the cache
        plans as the first one did.
        """
        with self._lock:
            sent = self._numbers["calls"]  # retries too
            left = self.max_calls - max(self._numbers["different"], sent) - kept
            return int(min(left, self.limits.calls(self._call(), self._spent(), taking)))

    def tightest(self) -> str:
        """The knob of the cap that allows the fewest calls more."""
        with self._lock:
            sent = self._numbers["calls"]
            left = {"max-calls": float(self.max_calls - max(self._numbers["different"], sent))}
            left |= self.limits.calls_each(self._call(), self._spent())
        return min(left, key=lambda flag: left[flag]).replace("-", "_")

    def expect(self, call: Spent, weight: float) -> None:
        """A call is likely to take so much, 0 where that is not known: as good to know as so many
        calls that did. The first ones of a climb are short, and from the cache none is sent.
        """
        self._expected, self._weight = call, weight

    def _call(self) -> Spent:
        """What one more is likely to take of the caps."""
        sent, (tokens, usd, minutes) = self._numbers["calls"], self._spent()
        if not sent:
            return self._expected
        took = tokens, usd, minutes - self._idle / 60
        tokens, usd, minutes = (
            (n + self._weight * likely) / (sent + self._weight) if likely else n / sent
            for n, likely in zip(took, self._expected, strict=True)
        )
        return tokens, usd, minutes

    def average(self) -> Spent:
        """What a call sent has taken on average; nothing where none was. Its minutes are known from
        some answers on, and without the first, for which an LM may have to be loaded.
        """
        with self._lock:
            sent, (tokens, usd, _) = self._numbers["calls"], self._spent()
            later = len(self._latencies) - 1
            since = time.monotonic() - self._first_answer - self._idle
        if not sent:
            return NOTHING
        return tokens / sent, usd / sent, since / 60 / later if later >= KNOWN else 0.0

    def _spent(self) -> Spent:
        tokens = self._numbers["tokens_in"] + self._numbers["tokens_out"]
        seconds = time.monotonic() - self._began if self._began else 0.0
        return tokens, self._numbers["cost"], seconds / 60

    def seconds_left(self) -> float:
        """Until the cap on minutes ends the work; infinite without one."""
        minutes = self.limits.minutes
        return math.inf if minutes is None else max(0.0, 60 * (minutes - self._spent()[2]))

    def start(self) -> None:
        """From now on minutes are counted; without this from the first request on."""
        self._began = self._began or time.monotonic()

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        """A stretch of work that asks no LM, such as a training: it takes minutes of the cap, but
        is no part of what a call takes.
        """
        start = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                if self._numbers["calls"]:  # until the first one it is all idle
                    self._idle += time.monotonic() - start

    @contextlib.contextmanager
    def keeping(self, taking: Callable[[], Spent], calls: int = 0) -> Iterator[None]:
        """A stretch of work that must leave so much, and so many calls: requests that fail and are
        made again count too. One beyond that raises BudgetExhausted. taking: asked at every call,
        as what a call takes may not be known before the first.
        """
        self._kept, self._kept_calls = taking, calls
        try:
            yield
        finally:
            self._kept, self._kept_calls = _nothing, 0

    @contextlib.contextmanager
    def share(
        self, calls: int, told: Callable[[int, int], None] = lambda asked, calls: None
    ) -> Iterator[None]:
        """A stretch of work that may make at most `calls` that this meter has not seen, cached or
        not; one more, or any made afterwards, raises ShareExhausted. told: after each, how many.
        """
        share = _Share(self, calls, self.usage().different + calls, told)
        try:
            with carrying(share):
                yield
        finally:
            share.over = True

    def begin(self, answers: int, key: str) -> None:
        """Note a call for so many answers that the cache does not know; raises ShareExhausted or
        BudgetExhausted instead of letting one too many through.

        key: tells this call from others; empty where nothing does.
        """
        with self._lock:
            self._within_cap(answers)
            self._count(answers, key)
        self._tell()

    def find(self, answers: int, key: str) -> None:
        """Note a call that the cache has answered; raises ShareExhausted."""
        with self._lock:
            self._count(answers, key)
            self._numbers["cached"] += answers
        self._tell()

    def send(self, answers: int, patient: bool = True) -> None:
        """Note a request for some of a call's answers, once more or for the first time; raises
        BudgetExhausted instead. patient: it may wait for others under way.
        """
        with self._lock:
            while patient and self._crowded():
                self._ended.wait(TICK)
                wait(0)
            self._within_cap(answers)
            if self.purse:
                self.purse.take(answers)
            self.start()
            if not self._numbers["calls"] and self._began:
                self._idle = time.monotonic() - self._began
            self._numbers["calls"] += answers
            self._flying += 1

    def _crowded(self) -> bool:
        """Whether those under way, at what calls took on average, would reach the cap of tokens or
        money; before that is known, whether there are many.
        """
        if not self._flying or (self.limits.tokens is None and self.limits.usd is None):
            return False
        (tokens, usd, _), (kept_tokens, kept_usd, _) = self._spent(), self._kept()
        if not (ended := self._numbers["calls"] - self._flying):
            return self._flying >= KNOWN
        share = 1 + (self._flying + 1) / ended  # of what is spent when all of these have ended
        now = self.limits.reached(tokens + kept_tokens, usd + kept_usd, 0)
        then = self.limits.reached(tokens * share + kept_tokens, usd * share + kept_usd, 0)
        return bool(then) and not now

    def _count(self, answers: int, key: str) -> None:
        share, different = self._share(), 0 if key in self._keys else answers
        if share and (share.over or self._numbers["different"] + different > share.end):
            raise ShareExhausted(
                f"stopped: it asked for more than its share of {share.calls} LM calls"
            )
        self._numbers["asked"] += answers
        self._numbers["different"] += different
        if key:
            self._keys.add(key)

    def _tell(self) -> None:
        if share := self._share():
            share.told(share.calls - (share.end - self._numbers["different"]), share.calls)

    def _share(self) -> _Share | None:
        """That of the stretch of work under way, where it is one of this meter."""
        share: _Share | None = carried()
        return share if share and share.meter is self else None

    def _within_cap(self, sent: int) -> None:
        if sent and self._numbers["calls"] + sent > self.max_calls - self._kept_calls:
            kept = f", but for {self._kept_calls} that are kept" if self._kept_calls else ""
            told = f"The cap of {self.max_calls} LM calls is reached{kept} (--max-calls)."
            raise BudgetExhausted(told)
        if not sent or self.limits == NONE:
            return
        tokens, usd, minutes = (a + b for a, b in zip(self._spent(), self._kept(), strict=True))
        if problem := self.limits.reached(tokens, usd, minutes):
            raise BudgetExhausted(problem)

    def add(self, seconds: float, **numbers: float) -> None:
        """A request has ended, after so long."""
        with self._lock:
            self._flying -= 1
            self._ended.notify_all()
            self._took(seconds)
        self.spend(**numbers)

    def _took(self, seconds: float) -> None:
        if not self._latencies:
            self._first_answer = time.monotonic()
        self._latencies.append(seconds)

    def spend(self, **numbers: float) -> None:
        with self._lock:
            for name, value in numbers.items():
                self._numbers[name] += value
            tokens = numbers.get("tokens_in", 0) + numbers.get("tokens_out", 0)
            usd = numbers.get("cost", 0.0)
            if self.purse and (usd or tokens):
                self.purse.paid(usd, int(tokens))


class Summing(Meter):
    """Keeps sums and the cap, and nothing of a single call: for work of any length. It does not
    know which questions differ.
    """

    def __init__(self) -> None:
        super().__init__(sys.maxsize)

    def cap(self, max_calls: int, limits: Limits) -> None:
        """Until now nothing was capped."""
        self.max_calls, self.limits = max_calls, limits

    def _count(self, answers: int, key: str) -> None:
        self._numbers["asked"] += answers

    def _took(self, seconds: float) -> None:
        pass

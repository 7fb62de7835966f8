"""Every LM call counted, priced and capped: those of our LMs, and of any other `dspy.LM` that a
metric or a program makes itself. Knows one call at a time, never what it is for.

Calls that do not go through DSPy (the openai package, an HTTP client) cannot be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import dspy

from optimize.errors import BudgetExhausted, LmRefused, ShareExhausted
from optimize.lm.dspy_calls import watch_calls
from optimize.lm.dspy_door import HistorylessLM, carried, carrying
from optimize.lm.limits import Limits
from optimize.lm.usage import Usage
from optimize.turns import turns

NONE = Limits()
_stretch: ContextVar[Meter | None] = ContextVar("stretch", default=None)
_repeat: ContextVar[int] = ContextVar("repeat", default=0)
# seconds that the call under way has waited for its turn on the cores
_waited: ContextVar[float | None] = ContextVar("waited", default=None)


@contextlib.contextmanager
def one_example(repeat: int = 0) -> Iterator[Meter]:
    """A meter of its own for the calls made within, in this thread or task: what one example costs.

    repeat: 0 for the first time an example is asked; another number asks the LM anew, with a place
    of its own in the cache.
    """
    spent = Meter(sys.maxsize)
    tokens = _stretch.set(spent), _repeat.set(repeat)
    try:
        yield spent
    finally:
        _stretch.reset(tokens[0])
        _repeat.reset(tokens[1])


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """The calls made within are not what the example costs: a metric's LM judges answers, and gives
    none. They still pass the run's meter.
    """
    token = _stretch.set(None)
    try:
        yield
    finally:
        _stretch.reset(token)


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

    That of calls is exact; tokens and money are known when a call is answered, so that those in
    flight may go beyond.
    """

    def __init__(self, max_calls: int, limits: Limits = NONE) -> None:
        self.max_calls, self.limits = max_calls, limits
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._numbers: dict[str, Any] = {f.name: 0 for f in fields(Usage) if f.name != "latencies"}
        self._latencies: list[float] = []
        self._keys: set[str] = set()
        _watch_dspy()

    def __deepcopy__(self, memo: object) -> Meter:
        return self  # an optimizer's copy of an LM still spends from the same purse

    def usage(self) -> Usage:
        with self._lock:
            return Usage(**self._numbers, latencies=tuple(self._latencies))

    def remaining(self) -> int:
        """Calls left under the cap. A call that the cache answers counts when it is the first of
        its kind, so that a run from the cache plans as the first one did.
        """
        with self._lock:
            sent = self._numbers["calls"]  # retries too
            left = self.max_calls - max(self._numbers["different"], sent)
            return max(0, int(min(left, self.limits.calls(sent, *self._spent()))))

    def _spent(self) -> tuple[float, float, float]:
        """Tokens, US dollars, minutes."""
        tokens = self._numbers["tokens_in"] + self._numbers["tokens_out"]
        return tokens, self._numbers["cost"], (time.monotonic() - self._began) / 60

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

    def send(self, answers: int) -> None:
        """Note a request for some of a call's answers, once more or for the first time; raises
        BudgetExhausted instead.
        """
        with self._lock:
            self._within_cap(answers)
            self._numbers["calls"] += answers

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
        if sent and self._numbers["calls"] + sent > self.max_calls:
            raise BudgetExhausted(f"The cap of {self.max_calls} LM calls is reached (--max-calls).")
        if sent and (problem := self.limits.reached(*self._spent())):
            raise BudgetExhausted(problem)

    def add(self, seconds: float, **numbers: float) -> None:
        """A call has ended, after so long."""
        with self._lock:
            self._latencies.append(seconds)
        self.spend(**numbers)

    def spend(self, **numbers: float) -> None:
        with self._lock:
            for name, value in numbers.items():
                self._numbers[name] += value


class MeteredLM(HistorylessLM):
    """A `dspy.LM` with a meter of its own.

    local: calls cost no money. any_schema: the server constrains answers to any JSON Schema, not
    only objects.
    """

    def __init__(
        self,
        model: str,
        *,
        meter: Meter,
        local: bool = False,
        any_schema: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        self.meter = meter
        self.local = local
        self.any_schema = any_schema

    def __deepcopy__(self, memo: object) -> MeteredLM:
        return self  # stateless apart from its connection pool, which copies share anyway


_others: Meter | None = None  # the meter of every LM that is not a MeteredLM


def count_others(meter: Meter | None) -> None:
    """From now on every LM of this process that has no meter of its own is counted by this one: a
    judge that a metric makes, a second LM in a program. None: by none.
    """
    global _others
    _others = meter


def note_embedded(texts: int, cost: float | None) -> None:
    """Texts were embedded, for so many US dollars; None: nobody knows."""
    if _others:
        _others.spend(embedded=texts, cost=cost or 0.0, unpriced=int(cost is None))


@cache  # once a process, when the first meter is made
def _watch_dspy() -> None:
    watch_calls(_Watch())


class _Watch:
    """Each call of any DSPy LM, told to the meters that it concerns."""

    def rollout(self) -> int:
        return _repeat.get()

    def beginning(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        for meter in _meters(lm):
            meter.begin(answers, key)

    def sending(self, lm: dspy.BaseLM, answers: int) -> None:
        for meter in _meters(lm):
            meter.send(answers)
        if isinstance(lm, MeteredLM) and lm.local and not _in_event_loop():
            _waited.set(turns().enter())

    def cached(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        for meter in _meters(lm):
            meter.find(answers, key)

    def failed(self, lm: dspy.BaseLM, seconds: float) -> None:
        seconds -= _turn_over()
        for meter in _meters(lm):
            meter.add(seconds, failed=1)

    def answered(self, lm: dspy.BaseLM, seconds: float) -> None:
        seconds -= _turn_over()
        for meter in _meters(lm):
            meter.add(seconds)

    def paid(self, lm: dspy.BaseLM, usage: dict[str, Any], cost: float | None) -> None:
        paid = 0.0 if isinstance(lm, MeteredLM) and lm.local else cost
        for meter in _meters(lm):
            meter.spend(
                tokens_in=usage.get("prompt_tokens") or 0,
                tokens_out=usage.get("completion_tokens") or 0,
                cost=paid or 0.0,
                unpriced=int(paid is None),
            )

    def refused(self, lm: dspy.BaseLM, told: str) -> None:
        """No other call of a run will fare better, and DSPy's optimizers would count each as a
        wrong answer. A program in use is told by DSPy's own error.
        """
        if any(meter.max_calls < sys.maxsize for meter in _meters(lm)):
            raise LmRefused(
                f"The LM's provider refuses the key or the account, or finds none: {told}"
            )

    def runs_here(self, lm: dspy.BaseLM) -> bool:
        return isinstance(lm, MeteredLM) and lm.local


def _turn_over() -> float:
    """The seconds for which a call waited for its turn; 0 for one that takes none."""
    waited = _waited.get()
    if waited is None:
        return 0.0
    _waited.set(None)
    turns().leave()
    return waited


def _in_event_loop() -> bool:
    """Whether waiting here would keep the very calls from ending that are waited for."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _meters(lm: dspy.BaseLM) -> list[Meter]:
    """The run's meter first: its cap holds before a call is noted anywhere else."""
    own = lm.meter if isinstance(lm, MeteredLM) else _others
    return [meter for meter in (own, _stretch.get()) if meter]

"""Every LM call counted, priced and capped. Knows one call at a time, never what it is for."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any

import dspy
from dspy.clients.execution import _cached, prepare

from optimize.errors import BudgetExhausted, ShareExhausted
from optimize.lm import heard


@dataclass(frozen=True)
class Usage:
    """What a stretch of work asked of LMs.

    asked counts every call, calls those that were sent (not answered from the cache), failed those
    of them that raised. Tokens and seconds are those of calls sent. unpriced counts calls sent
    whose price is not known.
    """

    asked: int = 0
    calls: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    unpriced: int = 0
    latencies: tuple[float, ...] = ()

    def __add__(self, more: Usage) -> Usage:
        numbers = {f.name: getattr(self, f.name) + getattr(more, f.name) for f in fields(self)}
        return Usage(**numbers)

    def __sub__(self, before: Usage) -> Usage:
        numbers = {
            f.name: getattr(self, f.name) - getattr(before, f.name)
            for f in fields(self)
            if f.name != "latencies"
        }
        return Usage(**numbers, latencies=self.latencies[len(before.latencies) :])

    @property
    def cost_usd(self) -> float | None:
        """None when some call's price is unknown: unknown is not zero."""
        return None if self.unpriced else self.cost

    @property
    def latency_p50_ms(self) -> float | None:
        import statistics

        return statistics.median(self.latencies) * 1000 if self.latencies else None


_stretch: ContextVar[Meter | None] = ContextVar("stretch", default=None)
_repeat: ContextVar[int] = ContextVar("repeat", default=0)


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


@dataclass
class _Share:
    """Calls that a stretch of work may ask a meter for. It travels in DSPy's settings, which DSPy
    hands to every thread it starts: what an optimizer has left running in the background when it
    was stopped knows by it that it is over."""

    meter: Meter
    calls: int
    end: int
    told: Callable[[int, int], None]
    over: bool = False


class Meter:
    """Counts for all LMs of a run, under threads, and the hard cap on calls sent."""

    def __init__(self, max_calls: int) -> None:
        self.max_calls = max_calls
        self._lock = threading.Lock()
        self._numbers: dict[str, Any] = {f.name: 0 for f in fields(Usage) if f.name != "latencies"}
        self._latencies: list[float] = []

    def __deepcopy__(self, memo: object) -> Meter:
        return self  # an optimizer's copy of an LM still spends from the same purse

    def usage(self) -> Usage:
        with self._lock:
            return Usage(**self._numbers, latencies=tuple(self._latencies))

    def remaining(self) -> int:
        """Calls left under the cap, cached ones counted, so that a run from the cache plans as the
        first one did.
        """
        with self._lock:
            return max(0, self.max_calls - int(self._numbers["asked"]))

    @contextlib.contextmanager
    def share(
        self, calls: int, told: Callable[[int, int], None] = lambda asked, calls: None
    ) -> Iterator[None]:
        """A stretch of work that may ask for at most `calls`, cached or not;

        one more, or one made afterwards, raises ShareExhausted. told: after each, how many of them.
        """
        share = _Share(self, calls, self.usage().asked + calls, told)
        try:
            with dspy.context(share=share):
                yield
        finally:
            share.over = True

    def ask(self, calls: int, cached: bool) -> None:
        """Note a call about to be made;

        raises BudgetExhausted instead of letting one too many through.
        """
        share: _Share | None = dspy.settings.get("share")
        with self._lock:
            if (
                share
                and share.meter is self
                and (share.over or self._numbers["asked"] + calls > share.end)
            ):
                raise ShareExhausted(
                    f"stopped: it asked for more than its share of {share.calls} LM calls"
                )
            if not cached and self._numbers["calls"] + calls > self.max_calls:
                raise BudgetExhausted(f"The cap of {self.max_calls} LM calls is reached.")
            self._numbers["asked"] += calls
            self._numbers["calls"] += 0 if cached else calls
            asked = self._numbers["asked"]
        if share and share.meter is self:
            share.told(share.calls - (share.end - asked), share.calls)

    def add(self, seconds: float, **numbers: float) -> None:
        with self._lock:
            self._latencies.append(seconds)
            for name, value in numbers.items():
                self._numbers[name] += value


class MeteredLM(dspy.LM):
    """A `dspy.LM` whose every call passes the meter; DSPy's growing history is replaced by it.

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
        self._thread = threading.local()

    def __deepcopy__(self, memo: object) -> MeteredLM:
        return self  # stateless apart from its connection pool, which copies share anyway

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        if repeat := _repeat.get():
            kwargs = {"rollout_id": repeat, **kwargs}
        call = prepare(self, prompt, messages, kwargs)
        cached = _cached(self, call, False) is not None
        self.meter.ask(call.n, cached)
        stretch = _stretch.get()
        if stretch:
            stretch.ask(call.n, cached)
        self._thread.entry = None
        start = time.perf_counter()
        try:
            answer = super().__call__(prompt, messages=messages, **kwargs)
        except Exception:
            self.meter.add(time.perf_counter() - start, failed=1)
            raise
        if not cached:
            for meter in filter(None, (self.meter, stretch)):
                self._count(meter, time.perf_counter() - start, self._thread.entry or {})
        return answer

    def update_history(self, entry: dict[str, Any]) -> None:
        self._thread.entry = entry
        heard.note(entry["outputs"])

    def _count(self, meter: Meter, seconds: float, entry: dict[str, Any]) -> None:
        usage, cost = entry.get("usage") or {}, 0.0 if self.local else entry.get("cost")
        meter.add(
            seconds,
            tokens_in=usage.get("prompt_tokens") or 0,
            tokens_out=usage.get("completion_tokens") or 0,
            cost=cost or 0.0,
            unpriced=int(cost is None),
        )

"""Every LM call told to its meters: those of our LMs, and of any other `dspy.LM` that a metric or a
program makes itself.

Calls that do not go through DSPy (the openai package, an HTTP client) cannot be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any

import dspy

from optimize.errors import LmRefused
from optimize.lm.dspy_calls import watch_calls
from optimize.lm.dspy_door import HistorylessLM
from optimize.lm.meter import Meter, Role
from optimize.lm.thinking import THOUGHTS
from optimize.turns import turns

_stretch: ContextVar[Meter | None] = ContextVar("stretch", default=None)
_repeat: ContextVar[int] = ContextVar("repeat", default=0)
_judging: ContextVar[Meter | None] = ContextVar("judging", default=None)
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
def apart() -> Iterator[Meter]:
    """The calls made within are not what the example costs: a metric's LM judges answers, and gives
    none. They have a meter of their own, and still pass the run's.
    """
    spent = _judging.get() or Meter(sys.maxsize)
    tokens = _stretch.set(None), _judging.set(spent)
    try:
        yield spent
    finally:
        _stretch.reset(tokens[0])
        _judging.reset(tokens[1])


class MeteredLM(HistorylessLM):
    """A `dspy.LM` with a meter of its own.

    role: what it is asked for. local: calls cost no money. any_schema: the server constrains
    answers to any JSON Schema, not only objects.
    """

    role: Role = "task"

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
        _watch_dspy()
        self.meter = meter
        self.local = local
        self.any_schema = any_schema

    def say(self, prompt: str, **options: Any) -> str:
        """Its plain answer, without what it thought on the way. Raises what the call raises."""
        found = self(prompt, **options)[0]
        text = str(found.get("text", "") if isinstance(found, dict) else found)
        return THOUGHTS.sub("", text).strip()

    def __deepcopy__(self, memo: object) -> MeteredLM:
        return self  # stateless apart from its connection pool, which copies share anyway


_others: Meter | None = None  # the meter of every LM that is not a MeteredLM


def count_others(meter: Meter | None) -> None:
    """From now on every LM of this process that has no meter of its own is counted by this one: a
    judge that a metric makes, a second LM in a program. None: by none.
    """
    global _others
    _others = meter
    _watch_dspy()


def note_embedded(texts: int, cost: float | None) -> None:
    """Texts were embedded, for so many US dollars; None: nobody knows."""
    if _others:
        _others.spend(embedded=texts, cost=cost or 0.0, unpriced=int(cost is None))
        if cost is None:
            _check_priced([_others], "the embedder")


@cache  # once a process
def _watch_dspy() -> None:
    watch_calls(_Watch())


class _Watch:
    """Each call of any DSPy LM, told to the meters that it concerns."""

    def rollout(self) -> int:
        return _repeat.get()

    def beginning(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        for meter in _meters(lm):
            meter.begin(answers, key)

    def seconds_left(self, lm: dspy.BaseLM) -> float:
        return min((meter.seconds_left() for meter in _meters(lm)), default=math.inf)

    def sending(self, lm: dspy.BaseLM, answers: int) -> None:
        patient = not _in_event_loop()
        for meter in _meters(lm):
            meter.send(answers, patient)
        if isinstance(lm, MeteredLM) and lm.local and not _in_event_loop():
            _waited.set(turns().enter())

    def cached(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        for meter in _meters(lm):
            meter.find(answers, key)

    def failed(self, lm: dspy.BaseLM, seconds: float, too_long: bool = False) -> None:
        seconds -= _turn_over()
        for meter in _meters(lm):
            meter.add(seconds, failed=1, too_long=int(too_long))

    def answered(self, lm: dspy.BaseLM, seconds: float) -> None:
        seconds -= _turn_over()
        for meter in _meters(lm):
            meter.add(seconds)

    def paid(self, lm: dspy.BaseLM, usage: dict[str, Any], cost: float | None) -> None:
        paid = 0.0 if isinstance(lm, MeteredLM) and lm.local else cost
        read_before = usage.get("prompt_tokens_details") or {}
        for meter in _meters(lm):
            meter.spend(
                tokens_in=usage.get("prompt_tokens") or 0,
                tokens_out=usage.get("completion_tokens") or 0,
                tokens_cached=read_before.get("cached_tokens") or 0,
                tokens_written=read_before.get("cache_creation_tokens") or 0,
                cost=paid or 0.0,
                unpriced=int(paid is None),
            )
        if paid is None:
            _check_priced(_meters(lm), lm.model)

    def refused(self, lm: dspy.BaseLM, told: str) -> None:
        """No other call of a run will fare better, and DSPy's optimizers would count each as a
        wrong answer. A program in use is told by DSPy's own error.
        """
        if any(meter.max_calls < sys.maxsize for meter in _meters(lm)):
            raise LmRefused(told)

    def runs_here(self, lm: dspy.BaseLM) -> bool:
        return isinstance(lm, MeteredLM) and lm.local


def _check_priced(meters: list[Meter], asked: str) -> None:
    """Raises LmRefused where a cap on money can no longer be kept to."""
    if any(meter.limits.usd is not None for meter in meters):
        raise LmRefused(
            f"What {asked} costs is not known, so --budget-usd cannot be kept to. Use --max-calls "
            "or --max-tokens in its place."
        )


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
    part = own.part(_role(lm)) if own else None
    stretch = _stretch.get(), _judging.get()
    return [meter for meter in dict.fromkeys((own, part, *stretch)) if meter]


def _role(lm: dspy.BaseLM) -> Role:
    if _judging.get():
        return "judge"
    return lm.role if isinstance(lm, MeteredLM) else "other"

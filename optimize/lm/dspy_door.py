"""The only module that touches DSPy's private or deprecated names (tests/test_architecture.py holds
it): when DSPy moves them, as 3.5 will, this file is what has to change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import dspy
from dspy.adapters import utils
from dspy.clients import execution
from dspy.clients.model_metadata import model_info
from dspy.utils.callback import BaseCallback

from optimize.lm import heard

MOST_REPEATS = 1000  # of one call; `--repeats` allows 20
_CARRIED = "optimize"  # our key in DSPy's settings


class Watch(Protocol):
    """Who is told of every LM call. answers: how many one call asks for (`n`). key: its place in
    the answer cache.
    """

    def rollout(self) -> int:
        """A number for a place of its own in the answer cache; 0: the usual place."""

    def sending(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        """The cache does not know the answer: the call is about to be sent. May raise."""

    def cached(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        """The cache has answered. May raise."""

    def failed(self, lm: dspy.BaseLM, seconds: float, key: str) -> None:
        """The call was sent, and raised an Exception."""

    def answered(
        self, lm: dspy.BaseLM, seconds: float, usage: dict[str, Any], cost: float | None
    ) -> None:
        """The call was sent and answered. usage: tokens, as OpenAI names them. cost: US dollars."""


def watch_calls(watch: Watch) -> None:
    """Tell `watch` of every call of every DSPy LM in this process from now on, sync and async.

    DSPy's callbacks would see these calls too, but neither what they cost nor, before they are
    sent, whether the cache knows the answer. So the two functions that run every LM call are
    wrapped, and the one they choose an engine with once the cache did not answer.
    """
    execute, aexecute, engine = execution.execute, execution.aexecute, execution._engine
    one_at_a_time = _OneAtATime()

    def watched_engine(lm: Any, call: Any, asynchronous: bool) -> Any:
        watch.sending(lm, call.n, _key(lm, call, asynchronous))
        return engine(lm, call, asynchronous)

    def watched_execute(lm: Any, call: Any) -> Any:
        with _watched(watch, lm, call, False) as found, one_at_a_time(_key(lm, call, False)):
            found.append(execute(lm, call))
        return found[0]

    async def watched_aexecute(lm: Any, call: Any) -> Any:
        with _watched(watch, lm, call, True) as found:
            found.append(await aexecute(lm, call))
        return found[0]

    execution._engine = watched_engine
    execution.execute, execution.aexecute = watched_execute, watched_aexecute


def _key(lm: Any, call: Any, asynchronous: bool) -> str:
    """Where DSPy keeps the answer to this call; empty where it keeps none."""
    if not call.cache:
        return ""
    try:
        place = call.key(lm, asynchronous)
        return str(dspy.cache.cache_key(place, execution.IGNORED_CACHE_KEYS))
    except TypeError:  # no JSON: DSPy keeps no answer then
        return ""


class _OneAtATime:
    """Of equal calls made at once the first is sent; the others wait, and find its answer cached.
    Those of an event loop do not: its thread has all of them to carry on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.RLock, int]] = {}

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


@contextmanager
def _watched(watch: Watch, lm: Any, call: Any, asynchronous: bool) -> Iterator[list[Any]]:
    """One call's way through DSPy; the list takes its result."""
    if rollout := watch.rollout():
        # a part of the cache's key, never sent; a call may have one of its own already
        known = call.kwargs.get("rollout_id") or lm.kwargs.get("rollout_id") or 0
        place = MOST_REPEATS * known + rollout
        call.legacy["rollout_id"] = call.kwargs["rollout_id"] = place
    found: list[Any] = []
    start = time.perf_counter()
    try:
        yield found
    except Exception:
        watch.failed(lm, time.perf_counter() - start, _key(lm, call, asynchronous))
        raise
    if found[0].cache_hit:
        watch.cached(lm, call.n, _key(lm, call, asynchronous))
    else:
        watch.answered(lm, time.perf_counter() - start, found[0].usage, found[0].cost)


class HistorylessLM(dspy.LM):
    """A `dspy.LM` that does not keep its last ten thousand prompts and answers; whoever listens
    hears the answers.
    """

    def update_history(self, entry: dict[str, Any]) -> None:
        heard.note(entry["outputs"])


@contextmanager
def carrying(value: object) -> Iterator[None]:
    """Hand `value` to every call made within, in DSPy's own threads as well: DSPy gives those its
    settings, but no context variables.
    """
    with dspy.context(**{_CARRIED: value}):
        yield


def carried() -> Any:
    """What `carrying` handed on; None outside of it."""
    return dspy.settings.get(_CARRIED)


def first_prompt(run: Callable[[], object]) -> list[dict[str, Any]]:
    """The messages of the first LM call that `run` would make. No LM is called."""

    class Listener(dspy.BaseLM):
        def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
            raise _Heard(messages or [{"role": "user", "content": prompt}])

    try:
        with dspy.context(lm=Listener("listener")):
            run()
    except _Heard as heard:
        return heard.messages
    return []


class _Heard(BaseException):
    """The prompt is known; nothing more is to be run."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages


@contextmanager
def refusing(error: BaseException) -> Iterator[None]:
    """Raise `error` as soon as an LM is asked within, be it the one in context or any other."""

    class Refuse(BaseCallback):
        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            raise error

    with dspy.context(lm=dspy.BaseLM("refused"), callbacks=[Refuse()]):
        yield


class OwnFallback:
    """Mixed into an adapter: `fallback` is what it asks in again after an unreadable answer."""

    def fallback(self) -> dspy.JSONAdapter:
        raise NotImplementedError

    def _make_json_adapter_fallback(self) -> dspy.JSONAdapter:
        return self.fallback()


def allows_none(annotation: Any) -> bool:
    """Whether a field of this type may be null, as DSPy reads types."""
    return bool(utils.annotation_allows_none(annotation))


def read_value(value: object, annotation: Any) -> Any:
    """An answer's text as the type of its field, the way DSPy's own formats read it."""
    return utils.parse_value(value, annotation)


def uncompiled(program: dspy.Module) -> None:
    """Let an optimizer take a module that another one has compiled."""
    program._compiled = False


def token_prices(provider: str, model: str) -> tuple[float, float] | None:
    """US dollars a token in and out, from the list that comes with DSPy; None where it has none."""
    found = model_info(provider, model)
    prices = found.get("input_cost_per_token"), found.get("output_cost_per_token")
    return None if None in prices else prices


def input_tokens(provider: str, model: str) -> int | None:
    """Tokens that the model reads at most, from the same list; None where it has none."""
    known = model_info(provider, model).get("max_input_tokens")
    return int(known) if known else None

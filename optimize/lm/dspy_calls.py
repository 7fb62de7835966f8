"""Every request that DSPy sends, seen before it leaves and after it is answered: one of the two
modules that touch DSPy's private names (tests/test_architecture.py holds it).
"""

from __future__ import annotations

import asyncio
import copy
import math
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import dspy
from dspy.clients import execution
from dspy.lm15 import (
    ContextLengthError,
    InvalidRequestError,
    ProviderError,
    RateLimitError,
    ServerError,
    TimeoutError,
    TransportError,
)

from optimize.lm.addresses import Address
from optimize.lm.deadline import TooLate, within
from optimize.lm.dspy_door import CUT, cache_key, engine_at, engine_by_post, token_prices
from optimize.lm.pool import elsewhere, one_call, pool_of
from optimize.lm.post import posted
from optimize.lm.thinking import (
    FIRST,
    OFF,
    hopeless,
    most_room,
    remember,
    room_to_think,
    unfinished,
)
from optimize.secrets import keep_secret, redacted
from optimize.stopping import wait

MOST_REPEATS = 1000  # of one call; `--repeats` allows 20
MOST_WAIT = 60.0  # seconds before a request is made again, whatever the server asks for
OUR_NAME = re.compile(r"endpoint-[0-9a-f]{12}/")
TOO_MUCH = (429, 503, 529)  # status of an endpoint that is asked too much
# how a server says so in its own words: vLLM and SGLang give no code for it that DSPy knows
TOO_LONG = re.compile(r"context (length|size|window)|(prompt|input)[^.]* too long", re.IGNORECASE)
FORBIDDEN = 403
IN_A_ROW = 10  # of these without an answer between them are about the key
SUBSCRIBED = ("claude-code", "openai-codex")  # paid by the month, not by the token

_answered: set[str] = set()  # models that have answered in this process, or in the cache
_forbidden: dict[str, int] = {}  # how many 403s each has given since it last answered


class Watch(Protocol):
    """Who is told of every call and every request that it takes. answers: how many are asked for
    (`n`). key: the call's place in the answer cache.
    """

    def rollout(self) -> int:
        """A number for a place of its own in the answer cache; 0: the usual place."""

    def beginning(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        """The cache does not know the answer to a call. May raise."""

    def seconds_left(self, lm: dspy.BaseLM) -> float:
        """Until a cap on the clock ends the command; infinite without one."""

    def sending(self, lm: dspy.BaseLM, answers: int) -> None:
        """A request for it is about to be sent, once more or for the first time. May raise."""

    def cached(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        """The cache has answered a call. May raise."""

    def failed(self, lm: dspy.BaseLM, seconds: float, too_long: bool = False) -> None:
        """The request was sent, and brought no answer. too_long: the LM does not read so much."""

    def answered(self, lm: dspy.BaseLM, seconds: float) -> None:
        """The request was sent and answered."""

    def paid(self, lm: dspy.BaseLM, usage: dict[str, Any], cost: float | None) -> None:
        """What requests have taken. usage: tokens, as OpenAI names them. cost: US dollars."""

    def refused(self, lm: dspy.BaseLM, told: str) -> None:
        """No call of this LM will fare better, and why: its key is refused, say. May raise."""

    def runs_here(self, lm: dspy.BaseLM) -> bool:
        """Whether the LM runs in this process: it takes what it is given, and an answer without
        content is its own word and no fault on the way.
        """


@dataclass(frozen=True)
class _Request:
    """One request under way. state, results: as DSPy keeps them."""

    watch: Watch
    lm: Any
    call: Any
    request: Any
    provider: Any
    state: Any
    results: list[Any]

    @contextmanager
    def watched(self) -> Iterator[None]:
        self.watch.sending(self.lm, 1 if self.request is not None else self.call.n)
        start = time.perf_counter()
        try:
            yield
            self._check()
        except BaseException as error:
            self.watch.failed(self.lm, time.perf_counter() - start, _too_long(error))
            # a page of some gateway
            if isinstance(error, ProviderError) and error.status == 200:
                raise dspy.LMServerError(error.message, model=self.lm.model) from error
            raise
        _answered.add(self.lm.model)
        _forbidden.pop(self.lm.model, None)
        self.watch.answered(self.lm, time.perf_counter() - start)

    def _check(self) -> None:
        """Raises dspy.LMServerError, after which DSPy asks again, for an answer that holds nothing:
        it says nothing about the program, and is to be cached nowhere.
        """
        result = self.state.result
        result.outputs = [_without_keys(output) for output in result.outputs]
        here = self.watch.runs_here(self.lm)
        own_word = here and not any(map(_thoughts, result.outputs))
        if not here and not posted() and hasattr(self.lm, "thinking"):
            self._check_thoughts()
        if any(map(_content, result.outputs)) or own_word:
            return
        if refusal := _refusal(self.state.response):
            result.outputs = [refusal]
            return
        self._take_back()
        if self._cut:
            raise dspy.LMProviderError(
                "it used up its max_tokens before it answered", model=self.lm.model
            )
        raise dspy.LMServerError("it answered without any content", model=self.lm.model)

    @property
    def _cut(self) -> bool:
        return getattr(self.state.response, "finish_reason", "") == CUT

    def _check_thoughts(self) -> None:
        """Raises MoreRoom for an answer that was cut in thoughts, or of an LM that thinks, where it
        may have more room; dspy.LMProviderError where it has used up all of it.
        """
        lm, given = self.lm, self.call.legacy
        asked = given.get("max_tokens") or given.get("max_completion_tokens") or 0
        lost = self._cut and any(map(unfinished, self.state.result.outputs))
        if self._cut and asked < (most_room(lm) if lost else room_to_think(lm)):
            self._take_back()
            remember(lm, _plainly(lm.model), asked)
            raise MoreRoom("it was cut in its thoughts", model=lm.model)
        if not room_to_think(lm):
            return
        if most := hopeless(lm.model, lost):
            self.watch.refused(lm, _no_end(_plainly(lm.model), most, asked))
        if lost:
            self._take_back()
            raise dspy.LMProviderError(
                f"it used up its {asked:,} tokens on thoughts before it answered", model=lm.model
            )

    def _take_back(self) -> None:
        """The answer was paid, and is to be kept nowhere."""
        if self.request is not None:
            # DSPy prices answers that are kept; this one was paid as well
            args = self.lm, self.state.result, self.state.response, self.provider, self.request
            execution._price_result(*args)
        _told_paid(self.watch, self.lm, self.state.result)
        self.results.remove(self.state.result)
        self.state.completed = self.state.recorded = False


class MoreRoom(dspy.LMProviderError):
    """The LM is known to think from now on: the call is to be made again, with room for that."""


def _no_end(name: str, cut: int, room: int) -> str:
    """What is to be done about an LM that thinks without end."""
    return (
        f"LM {name} thinks without end: {cut} of its first {FIRST} answers were cut in its "
        f"thoughts at {room:,} tokens, so there is nothing to score. {OFF}; or give the task more "
        f"room, Task(max_tokens=…), on a server with a context for that."
    )


def watch_calls(watch: Watch) -> None:
    """Tell `watch` of every call of every DSPy LM in this process from now on, sync and async.

    DSPy's callbacks would see these calls too, but neither what they cost, nor that they are made
    again after a failure, nor, before they are sent, whether the cache knows the answer. So the
    functions that run every call and every attempt at it are wrapped. Waits between two attempts
    are bounded, and end when the command is stopped.
    """
    execute, aexecute = execution.execute, execution.aexecute
    attempt, aattempt = execution._attempt, execution._aattempt
    engine, retryable = execution._engine, execution._retryable
    one_at_a_time = _OneAtATime()

    def watched_engine(lm: Any, call: Any, asynchronous: bool) -> Any:
        if post := posted():
            found = engine_by_post(engine(lm, call, asynchronous), post)
            watch.beginning(lm, call.counted, call.place)
            return found
        watch.beginning(lm, call.counted, call.place)
        return engine(lm, call, asynchronous)

    def watched_attempt(
        lm: Any, call: Any, backend: Any, request: Any, provider: Any, state: Any, results: Any
    ) -> None:
        one = _Request(watch, lm, call, request, provider, state, results)
        with _slot(watch, lm) as address, one.watched():
            there = engine_at(backend, provider, address)
            # what a request that is left behind does later must not be seen
            own, told = copy.copy(state), list(results)
            try:
                with _until(watch, lm, call) as seconds:
                    within(seconds, lambda: attempt(lm, call, there, request, provider, own, told))
                vars(state).update(vars(own))
            finally:
                results[:] = told

    async def watched_aattempt(
        lm: Any, call: Any, backend: Any, request: Any, provider: Any, state: Any, results: Any
    ) -> None:
        one = _Request(watch, lm, call, request, provider, state, results)
        # a loop's only thread cannot wait for a place: it has those to carry on that hold one
        with _slot(watch, lm, patient=False) as address, one.watched():
            there = engine_at(backend, provider, address)
            with _until(watch, lm, call) as seconds:
                asked = aattempt(lm, call, there, request, provider, state, results)
                await asyncio.wait_for(asked, None if math.isinf(seconds) else seconds)

    def executed(lm: Any, call: Any) -> Any:
        with one_at_a_time(call.place), _refusals(watch, lm), one_call(lm.model):
            return _told(watch, lm, call, execute(lm, call))

    async def aexecuted(lm: Any, call: Any) -> Any:
        with _refusals(watch, lm), one_call(lm.model):
            return _told(watch, lm, call, await aexecute(lm, call))

    def watched_execute(lm: Any, call: Any) -> Any:
        _number(watch, lm, call)
        _place(lm, call, False)
        try:
            return executed(lm, call)
        except MoreRoom:
            _place(lm, call, False)
            return executed(lm, call)

    async def watched_aexecute(lm: Any, call: Any) -> Any:
        _number(watch, lm, call)
        _place(lm, call, True)
        try:
            return await aexecuted(lm, call)
        except MoreRoom:
            _place(lm, call, True)
            return await aexecuted(lm, call)

    def worth_another(state: Any, error: Exception, number: int, retries: int) -> bool:
        again = retryable(state, error, number, retries)
        soon = _hint(error) <= MOST_WAIT or elsewhere()
        return again and soon and not posted()  # the same reply would come

    execution._engine = watched_engine
    execution._attempt, execution._aattempt = watched_attempt, watched_aattempt
    execution.execute, execution.aexecute = watched_execute, watched_aexecute
    execution._retryable, execution._delay = worth_another, _delay
    # a call that is given more time is the same call
    execution.IGNORED_CACHE_KEYS = [*execution.IGNORED_CACHE_KEYS, "timeout"]
    execution.time = SimpleNamespace(sleep=wait)


@contextmanager
def _until(watch: Watch, lm: Any, call: Any) -> Iterator[float]:
    """Seconds that a request may take in all. DSPy's timeout is that of a byte, and a server that
    keeps a connection alive sends one now and then.
    """
    if watch.runs_here(lm) or posted():
        yield math.inf
        return
    given = call.kwargs.get("timeout") or lm.kwargs.get("timeout")
    own = float(given) if isinstance(given, int | float) else math.inf
    seconds = min(own, watch.seconds_left(lm))
    try:
        yield seconds
    except (TooLate, asyncio.TimeoutError) as error:  # noqa: UP041 (that name is DSPy's here)
        raise dspy.LMTimeoutError(
            f"there was no whole answer within {seconds:.0f} s", model=lm.model
        ) from error


@contextmanager
def _slot(watch: Watch, lm: Any, patient: bool = True) -> Iterator[Address | None]:
    """A place among the requests that an endpoint is asked at once, and its address where the LM
    has several; what runs here needs none.
    """
    if watch.runs_here(lm) or posted():
        yield None
        return
    pool = pool_of(lm.model)
    with pool.slot(patient) as slot:
        try:
            yield slot.endpoint.address
        except Exception as error:
            if slot.endpoint.address:
                _add(error, f" (at {slot.endpoint.address.url})")
            if _its_fault(error):
                pause = _hint(error)
                too_much = getattr(error, "status", None) in TOO_MUCH
                pool.failed(slot, too_much, pause if pause <= MOST_WAIT else 0.0)
            raise
        pool.answered(slot.endpoint)


def _too_long(error: BaseException) -> bool:
    """Whether a request was refused since the LM does not read so much."""
    if isinstance(error, ContextLengthError | dspy.ContextWindowExceededError):
        return True
    invalid = isinstance(error, InvalidRequestError | dspy.LMInvalidRequestError)
    return invalid and bool(TOO_LONG.search(str(error)))


def _its_fault(error: Exception) -> bool:
    """Whether another endpoint might have answered."""
    passing = ServerError, RateLimitError, TimeoutError, TransportError
    return dspy.is_retryable_lm_error(error) or isinstance(error, passing)


def _add(error: Exception, more: str) -> None:
    if message := getattr(error, "message", ""):
        error.message = message + more  # type: ignore[attr-defined]
        error.args = tuple(a + more if a == message else a for a in error.args)


@contextmanager
def _refusals(watch: Watch, lm: Any) -> Iterator[None]:
    """Tell of a refused key; no error tells a key that the server has echoed."""
    try:
        yield
    except dspy.LMError as error:
        error.message = _plainly(error.message)
        error.args = tuple(_plainly(a) if isinstance(a, str) else a for a in error.args)
        # a gateway's 403 to one text among others is about that text
        key = isinstance(error, dspy.LMAuthError)
        of_text = key and getattr(error, "status", None) == FORBIDDEN and lm.model in _answered
        if of_text:
            _forbidden[lm.model] = _forbidden.get(lm.model, 0) + 1
            of_text = _forbidden[lm.model] < IN_A_ROW
        if (key and not of_text) or isinstance(error, dspy.LMBillingError):
            said = "The LM's provider refuses the key or the account, or finds none: "
            watch.refused(lm, said + str(error).strip())
        raise


def _plainly(text: str) -> str:
    """Without keys, and without the names that endpoints have among us (lm.declare_endpoint)."""
    return OUR_NAME.sub("", redacted(text))


def _number(watch: Watch, lm: Any, call: Any) -> None:
    """Give the call a number of its own where it is a repeat. Whoever made the LM, no text that is
    kept or shown may hold its key.
    """
    for options in (lm.kwargs, call.kwargs):
        keep_secret(options.get("api_key"))
        for header in ("headers", "extra_headers"):
            for value in (options.get(header) or {}).values():
                keep_secret(str(value).removeprefix("Bearer "))
    if rollout := watch.rollout():
        # a part of the cache's key, never sent; a call may have one of its own already
        known = call.kwargs.get("rollout_id") or lm.kwargs.get("rollout_id") or 0
        place = MOST_REPEATS * known + rollout
        call.legacy["rollout_id"] = call.kwargs["rollout_id"] = place


def _place(lm: Any, call: Any, asynchronous: bool) -> None:
    """Give the call its room and its place in the cache, and note on it which (empty where it has
    none) and how many answers it counts for: none where it is made again for more room.
    """
    call.counted = 0 if hasattr(call, "counted") else call.n
    thinking = room_to_think(lm)
    own, room = call.kwargs.get("max_tokens"), lm.kwargs.get("max_completion_tokens")
    # the LM's own room holds its thoughts as well, or is known by another name
    if own and (room or own < thinking):
        del call.kwargs["max_tokens"]
        call.legacy.pop("max_tokens")
        call.legacy |= {k: v for k, v in lm.kwargs.items() if k == "max_tokens"}
    if not room and (call.legacy.get("max_tokens") or thinking) < thinking:
        call.legacy["max_tokens"] = thinking
    call.place = ""
    if call.cache and (dspy.cache.enable_disk_cache or dspy.cache.enable_memory_cache):
        request = call.key(lm, asynchronous)
        call.place = cache_key(dspy.cache, request, execution.IGNORED_CACHE_KEYS)


def _told(watch: Watch, lm: Any, call: Any, result: Any) -> Any:
    if result.cache_hit:
        _answered.add(lm.model)
        watch.cached(lm, call.counted, call.place)
    else:
        _told_paid(watch, lm, result)
    return result


def _told_paid(watch: Watch, lm: Any, result: Any) -> None:
    """What comes by post costs a part of the price."""
    if result.cost is None:  # DSPy prices no answer whose service tier it does not know
        result.cost = _listed(lm.model, result.usage)
    post = posted()
    if post and result.cost is not None:
        result.cost *= post.price
    watch.paid(lm, result.usage, result.cost)


def _listed(name: str, usage: dict[str, Any]) -> float | None:
    """US dollars by the list of prices; None where it has none for this LM, or the server has not
    told how many tokens there were.
    """
    provider, _, model = name.partition("/")
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if OUR_NAME.match(name) or provider in SUBSCRIBED or read is None or written is None:
        return None
    prices = token_prices(provider, model)
    return float(prices[0] * read + prices[1] * written) if prices else None


def _without_keys(output: Any) -> Any:
    if isinstance(output, dict):
        return {k: redacted(v) if isinstance(v, str) else v for k, v in output.items()}
    return redacted(output) if isinstance(output, str) else output


def _content(output: Any) -> bool:
    """Whether there is anything in an answer, as DSPy gives them: text, or a dict that holds it."""
    if not isinstance(output, dict):
        return bool(str(output or "").strip())
    return bool(str(output.get("text") or "").strip() or output.get("tool_calls"))


def _thoughts(output: Any) -> bool:
    """Whether a thinking model's thoughts came apart from an answer."""
    return isinstance(output, dict) and bool(output.get("reasoning_content"))


def _refusal(response: Any) -> str:
    """What the LM said in place of an answer, where it refused one."""
    parts = response.message.parts if response is not None else ()
    return "".join(part.text for part in parts if part.type == "refusal")


def _hint(error: Exception) -> float:
    """Seconds after which the server wants to be asked again; 0 where it does not say."""
    return execution.finite_seconds(getattr(error, "retry_after", None)) or 0.0


def _delay(error: Exception, number: int) -> float:
    """Seconds until the next attempt: what the server asks for, else twice as long each time; with
    jitter, so that calls side by side do not come back together. None where another one is asked.
    """
    if elsewhere():
        return 0.0
    seconds = max(_hint(error), min(float(2**number), MOST_WAIT))
    return float(seconds * random.uniform(1.0, 1.25))


class _OneAtATime:
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

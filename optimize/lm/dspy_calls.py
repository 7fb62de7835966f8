"""Every request that DSPy sends, seen before it leaves and after it is answered: one of the two
modules that touch DSPy's private names (tests/test_architecture.py holds it).
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dspy
from dspy.clients import execution

from optimize.lm.addresses import Address
from optimize.lm.deadline import TooLate, within
from optimize.lm.dspy_door import (
    cache_key,
    engine_at,
    engine_by_post,
    refusal,
    seconds_asked,
    takes_temperature,
)
from optimize.lm.faults import (
    MOST_WAIT,
    TOO_MUCH,
    add_to,
    delay,
    is_about_the_key,
    is_not_there,
    its_fault,
    note_answer,
    silence,
)
from optimize.lm.one_at_a_time import OneAtATime
from optimize.lm.paid import plainly
from optimize.lm.pool import elsewhere, one_call, pool_of
from optimize.lm.post import posted
from optimize.lm.request import MoreRoom, RequestUnderWay, has_content
from optimize.lm.thinking import room_to_think
from optimize.lm.watch import Watch
from optimize.secrets import keep_secret
from optimize.stopping import wait

MOST_REPEATS = 1000  # of one call; `--repeats` allows 20
NO_SUCH = (
    "The server answers 404: it knows no such model, or no such address (an OpenAI-compatible one "
    "mostly ends with /v1)."
)
ONCE_BACK = "Once it answers again the same command goes on; what was answered is cached."


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
    one_at_a_time = OneAtATime()

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
        one = RequestUnderWay(watch, lm, call, request, provider, state, results)
        with _slot(watch, lm) as address, one.watched():
            there = engine_at(backend, provider, address)
            if dspy.settings.send_stream is not None:  # goes on in the thread that it began in
                attempt(lm, call, there, request, provider, state, results)
                return
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
        one = RequestUnderWay(watch, lm, call, request, provider, state, results)
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
        soon = seconds_asked(error) <= MOST_WAIT or elsewhere()
        return again and soon and not posted()  # the same reply would come

    execution._engine = watched_engine
    execution._attempt, execution._aattempt = watched_attempt, watched_aattempt
    execution.execute, execution.aexecute = watched_execute, watched_aexecute
    execution._retryable, execution._delay = worth_another, delay
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
                add_to(error, f" (at {slot.endpoint.address.url})")
            if its_fault(error):
                pause = seconds_asked(error)
                too_much = getattr(error, "status", None) in TOO_MUCH
                pool.failed(slot, too_much, pause if pause <= MOST_WAIT else 0.0)
            raise
        pool.answered(slot.endpoint)


@contextmanager
def _refusals(watch: Watch, lm: Any) -> Iterator[None]:
    """Tell of a refused key; no error tells a key that the server has echoed."""
    try:
        yield
    except dspy.LMError as error:
        error.message = plainly(error.message)
        error.args = tuple(plainly(a) if isinstance(a, str) else a for a in error.args)
        told = str(error).strip()
        if is_about_the_key(error, lm.model):
            said = "The LM's provider refuses the key or the account, or finds none: "
            watch.refused(lm, said + told)
        if is_not_there(error, lm.model):
            watch.refused(lm, f"{told} {NO_SUCH}")
        if quiet := silence(error, lm.model):
            watch.refused(lm, f"LM {plainly(lm.model)} {quiet}. The last: {told} {ONCE_BACK}")
        raise


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
    if not takes_temperature(*lm.model.partition("/")[::2]):  # DSPy's optimizers may give one
        call.kwargs.pop("temperature", None)
        call.legacy.pop("temperature", None)
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
    if refused := getattr(call, "refused", None):
        raise refused
    if result.cache_hit:
        # LiteLLM's answers are kept as they came
        if not any(map(has_content, result.outputs)) and (said := refusal(result.raw)):
            result.outputs = [said]
        note_answer(lm.model, cached=True)
        watch.cached(lm, call.counted, call.place)
    return result

"""One request under way: told before it leaves and after it has ended, its answer looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.lm15 import ProviderError

from optimize.errors import LmRefused
from optimize.lm.dspy_door import CUT, finish_reason, price_result, refusal
from optimize.lm.faults import is_too_long, note_answer
from optimize.lm.paid import plainly, told_paid
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
from optimize.lm.watch import Watch
from optimize.secrets import redacted


@dataclass(frozen=True)
class RequestUnderWay:
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
            try:
                self._tell_paid()
            except LmRefused as error:  # raised once the answer is in the cache, since it was paid
                self.call.refused = error
        except BaseException as error:
            self.watch.failed(self.lm, time.perf_counter() - start, is_too_long(error))
            # a page of some gateway
            if isinstance(error, ProviderError) and error.status == 200:
                raise dspy.LMServerError(error.message, model=self.lm.model) from error
            raise
        note_answer(self.lm.model)
        self.watch.answered(self.lm, time.perf_counter() - start)

    def _check(self) -> None:
        """Raises dspy.LMServerError, after which DSPy asks again, for an answer that holds nothing:
        it says nothing about the program, and is to be cached nowhere.
        """
        result = self.state.result
        result.outputs = [without_keys(output) for output in result.outputs]
        here = self.watch.runs_here(self.lm)
        own_word = here and not any(map(has_thoughts, result.outputs))
        if not here and not posted() and hasattr(self.lm, "thinking"):
            self._check_thoughts()
        if any(map(has_content, result.outputs)) or own_word:
            return
        if told := refusal(result.raw):
            result.outputs = [told]
            return
        self._take_back()
        if self._cut:
            raise dspy.LMProviderError(
                "it used up its max_tokens before it answered", model=self.lm.model
            )
        raise dspy.LMServerError("it answered without any content", model=self.lm.model)

    @property
    def _cut(self) -> bool:
        return finish_reason(self.state.result.raw) == CUT

    def _check_thoughts(self) -> None:
        """Raises MoreRoom for an answer that was cut in thoughts, or of an LM that thinks, where it
        may have more room; dspy.LMProviderError where it has used up all of it.
        """
        lm, given = self.lm, self.call.legacy
        asked = given.get("max_tokens") or given.get("max_completion_tokens") or 0
        lost = self._cut and any(map(unfinished, self.state.result.outputs))
        if self._cut and asked < (most_room(lm) if lost else room_to_think(lm)):
            self._take_back()
            remember(lm, plainly(lm.model), asked)
            raise MoreRoom("it was cut in its thoughts", model=lm.model)
        if not room_to_think(lm):
            return
        if most := hopeless(lm.model, lost):
            self.watch.refused(lm, _no_end(plainly(lm.model), most, asked))
        if lost:
            self._take_back()
            raise dspy.LMProviderError(
                f"it used up its {asked:,} tokens on thoughts before it answered", model=lm.model
            )

    def _take_back(self) -> None:
        """The answer was paid, and is to be kept nowhere."""
        self._tell_paid()
        self.results.remove(self.state.result)
        self.state.completed = self.state.recorded = False

    def _tell_paid(self) -> None:
        """At once: a call may take several requests, of which a later one may fail or be one too
        many.
        """
        if self.request is not None:
            # DSPy prices an answer once its call goes on
            args = self.lm, self.state.result, self.state.response, self.provider, self.request
            price_result(*args)
        told_paid(self.watch, self.lm, self.state.result)


class MoreRoom(dspy.LMProviderError):
    """The LM is known to think from now on: the call is to be made again, with room for that."""


def _no_end(name: str, cut: int, room: int) -> str:
    """What is to be done about an LM that thinks without end."""
    return (
        f"LM {name} thinks without end: {cut} of its first {FIRST} answers were cut in its "
        f"thoughts at {room:,} tokens, so there is nothing to score. {OFF}; or give the task more "
        f"room, Task(max_tokens=…), on a server with a context for that."
    )


def without_keys(output: Any) -> Any:
    if isinstance(output, dict):
        return {k: redacted(v) if isinstance(v, str) else v for k, v in output.items()}
    return redacted(output) if isinstance(output, str) else output


def has_content(output: Any) -> bool:
    """Whether there is anything in an answer, as DSPy gives them: text, or a dict that holds it."""
    if not isinstance(output, dict):
        return bool(str(output or "").strip())
    return bool(str(output.get("text") or "").strip() or output.get("tool_calls"))


def has_thoughts(output: Any) -> bool:
    """Whether a thinking model's thoughts came apart from an answer."""
    return isinstance(output, dict) and bool(output.get("reasoning_content"))

"""What an LM's error is about: the text, the key, or an endpoint that may answer at another try."""

from __future__ import annotations

import random
import re
import time

import dspy
from dspy.lm15 import (
    ContextLengthError,
    InvalidRequestError,
    RateLimitError,
    ServerError,
    TimeoutError,
    TransportError,
)

from optimize.lm.dspy_door import seconds_asked
from optimize.lm.pool import elsewhere

MOST_WAIT = 60.0  # seconds before a request is made again, whatever the server asks for
TOO_MUCH = (429, 503, 529)  # status of an endpoint that is asked too much
# how a server says so in its own words: vLLM and SGLang give no code for it that DSPy knows
TOO_LONG = re.compile(r"context (length|size|window)|(prompt|input)[^.]* too long", re.IGNORECASE)
WRONG_KEY = re.compile(r"api key (not valid|expired)", re.IGNORECASE)  # Google's, with a 400
FORBIDDEN = 403
IN_A_ROW = 10  # of these without an answer between them are about the key
NOT_THERE = 404
# calls in a row, each with its retries, and seconds since the last answer, after which an LM is
# taken to be down: a server that is started anew is there again by then
SILENT_CALLS, SILENT_SECONDS = 20, 60.0

_answered: set[str] = set()  # models that have answered in this process, or in the cache
_forbidden: dict[str, int] = {}  # how many 403s each has given since it last answered
# calls of each that have failed since it last answered, and when the first of them did
_silent: dict[str, tuple[int, float]] = {}


def note_answer(model: str, cached: bool = False) -> None:
    """A model has answered, or the cache has, which says nothing of its key now."""
    _answered.add(model)
    if not cached:
        _forbidden.pop(model, None)
        _silent.pop(model, None)


def silence(error: dspy.LMError, model: str) -> str:
    """How long a model has not answered any call, where that is long; else empty. To be asked once
    for each call that has failed for good.
    """
    if not its_fault(error):  # it is there, and says what is wrong
        _silent.pop(model, None)
        return ""
    calls, since = _silent.get(model, (0, time.monotonic()))
    _silent[model] = calls + 1, since
    seconds = time.monotonic() - since
    if calls + 1 < SILENT_CALLS or seconds < SILENT_SECONDS:
        return ""
    return f"has answered none of {calls + 1} calls for {seconds:.0f} s"


def is_not_there(error: dspy.LMError, model: str) -> bool:
    """Whether a server that has never answered knows neither the address nor the model."""
    return getattr(error, "status", None) == NOT_THERE and model not in _answered


def is_about_the_key(error: dspy.LMError, model: str) -> bool:
    """Whether no call of the model will fare better. A gateway's 403 to one text among others is
    about that text.
    """
    key = isinstance(error, dspy.LMAuthError) or bool(WRONG_KEY.search(str(error)))
    if key and getattr(error, "status", None) == FORBIDDEN and model in _answered:
        _forbidden[model] = _forbidden.get(model, 0) + 1
        key = _forbidden[model] >= IN_A_ROW
    return key or isinstance(error, dspy.LMBillingError)


def is_too_long(error: BaseException) -> bool:
    """Whether a request was refused since the LM does not read so much."""
    if isinstance(error, ContextLengthError | dspy.ContextWindowExceededError):
        return True
    invalid = isinstance(error, InvalidRequestError | dspy.LMInvalidRequestError)
    return invalid and bool(TOO_LONG.search(str(error)))


def its_fault(error: Exception) -> bool:
    """Whether another endpoint might have answered."""
    passing = ServerError, RateLimitError, TimeoutError, TransportError
    return dspy.is_retryable_lm_error(error) or isinstance(error, passing)


def add_to(error: Exception, more: str) -> None:
    if message := getattr(error, "message", ""):
        error.message = message + more  # type: ignore[attr-defined]
        error.args = tuple(a + more if a == message else a for a in error.args)


def delay(error: Exception, number: int) -> float:
    """Seconds until the next attempt: what the server asks for, else twice as long each time; with
    jitter, so that calls side by side do not come back together. None where another one is asked.
    """
    if elsewhere():
        return 0.0
    seconds = max(seconds_asked(error), min(float(2**number), MOST_WAIT))
    return float(seconds * random.uniform(1.0, 1.25))

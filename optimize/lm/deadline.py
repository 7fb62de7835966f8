"""An end to a request by the clock: one that gets a byte now and then never times out by itself."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class TooLate(Exception):
    """The work was not done in time."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """What the work gives or raises; TooLate after so many seconds.

    A read that a server keeps alive cannot be interrupted, so the work is done in a thread of its
    own, which is left behind then: whatever it does later must matter to nobody.
    """
    if math.isinf(seconds):
        return work()
    given: list[T] = []
    raised: list[BaseException] = []
    context = copy_context()

    def run() -> None:
        try:
            given.append(context.run(work))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if raised:
        raise raised[0]
    if not given:
        raise TooLate
    return given[0]

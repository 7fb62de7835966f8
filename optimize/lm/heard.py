"""What LMs answered word for word while a stretch of work was listened to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """A list of every answer given within, in this thread, cached or not."""
    found: list[str] = []
    token = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(token)


def note(outputs: list[Any]) -> None:
    """An LM's answers to one call, as DSPy gives them: text, or a dict that holds it."""
    found = _heard.get()
    if found is not None:
        found += [str(o.get("text", o) if isinstance(o, dict) else o) for o in outputs]

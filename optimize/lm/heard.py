"""What LMs answered word for word while a stretch of work was listened to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Heard:
    """cut: tokens at which the last of the answers was cut; 0 where it was not. again: calls that
    were made since an answer could not be read.
    """

    texts: list[str] = field(default_factory=list)
    cut: int = 0
    again: int = 0


_heard: ContextVar[Heard | None] = ContextVar("heard", default=None)


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """Every answer given within, in this thread, cached or not."""
    found = Heard()
    token = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(token)


def note(outputs: list[Any], cut: int = 0) -> None:
    """An LM's answers to one call, as DSPy gives them: text, or a dict that holds it. cut: the
    tokens at which they were cut.
    """
    found = _heard.get()
    if found is not None:
        found.texts += [str(o.get("text", o) if isinstance(o, dict) else o) for o in outputs]
        found.cut = cut


def note_again() -> None:
    """An answer could not be read, and is asked for once more."""
    found = _heard.get()
    if found is not None:
        found.again += 1

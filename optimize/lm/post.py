"""Requests that are answered some time later, all together, in place of one by one. Knows no
provider.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Letter:
    """A request as it would be sent: address, headers (a key among them) and JSON. copy: tells it
    from other requests of the same question, each of which wants an answer of its own.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes
    copy: int = 0

    @property
    def id(self) -> str:
        """The same for the same question and copy, 32 letters."""
        place = f"{self.url}\n{self.copy or ''}"
        return hashlib.sha256(place.encode() + self.body).hexdigest()[:32]


@dataclass(frozen=True)
class Reply:
    """What the provider says to a request: an HTTP status, and the body that belongs to it."""

    status: int
    body: bytes


class Unanswered(BaseException):
    """The answer has not come yet. A BaseException, or DSPy would try in another format."""


class Post(Protocol):
    """price: of an answer, as a share of what the provider lists."""

    price: float

    def reply(self, letter: Letter) -> Reply | None:
        """What has come; None: nothing yet."""


_post: ContextVar[Post | None] = ContextVar("post", default=None)
_copy: ContextVar[int] = ContextVar("copy", default=0)


@contextlib.contextmanager
def by_post(post: Post, copy: int = 0) -> Iterator[None]:
    """No LM is called within, in this thread or task: what has come by post is the answer, and
    Unanswered is raised where nothing has. copy: as letters have it.
    """
    token, number = _post.set(post), _copy.set(copy)
    try:
        yield
    finally:
        _post.reset(token)
        _copy.reset(number)


def posted() -> Post | None:
    return _post.get()


def copy_posted() -> int:
    return _copy.get()

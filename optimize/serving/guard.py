"""Who may ask, and how much at once: looked at before a request reaches the application."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from optimize.serving.metrics import Metrics

MOST_BYTES = 4 << 20  # of a request's body
BODY_SECONDS = 20.0  # in which it must have come
OPEN = "/health"  # asked by load balancers, which have no key

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Refused(Exception):
    """A request that is not answered. kind: one word for programs; message: for people; wait:
    seconds after which to try again.
    """

    def __init__(self, status: int, kind: str, message: str, wait: int = 0) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.wait = status, kind, message, wait

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"kind": self.kind, "message": self.message}}

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.wait)} if self.wait else {}


class Guard:
    """An ASGI application around another one.

    key: that requests must bring; empty: none. local: the service listens on loopback, where a page
    in a browser must not reach it under another name. most: requests to predict at once.
    """

    def __init__(self, app: App, metrics: Metrics, key: str, local: bool, most: int) -> None:
        self.app, self.metrics = app, metrics
        self.key, self.local, self.most = key, local, most
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 499  # the client has gone

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
            self._check(scope["path"], headers)
            if scope["method"] == "POST":
                body = await _body(headers, receive)
                with self._place():
                    await self.app(scope, _replayed(body, receive), noting)
            else:
                await self.app(scope, receive, noting)
        except Refused as refused:
            await _send(refused, noting)
        finally:
            self.metrics.answered(scope["path"], status, time.perf_counter() - began)

    def _check(self, path: str, headers: dict[str, str]) -> None:
        """Raises Refused for a foreign name on loopback, another page's request, a wrong key."""
        if self.local and not is_loopback(_hostname(f"//{headers.get('host', '')}")):
            raise Refused(403, "host", "This service answers to localhost and 127.0.0.1 alone.")
        if self.local and "origin" in headers and not is_loopback(_hostname(headers["origin"])):
            raise Refused(403, "origin", "Pages of other origins may not ask this service.")
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if (
            self.key
            and path != OPEN
            and not secrets.compare_digest(given.encode(), self.key.encode())
        ):
            raise Refused(401, "key", "Give the service's key: Authorization: Bearer KEY.")

    def _place(self) -> _Place:
        if self._inside >= self.most:
            raise Refused(429, "busy", f"{self.most} requests are under way; try again.", wait=1)
        return _Place(self)


class _Place:
    """One of the requests at once."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def __enter__(self) -> None:
        self.guard._inside += 1
        self.guard.metrics.in_flight.inc()

    def __exit__(self, *_: object) -> None:
        self.guard._inside -= 1
        self.guard.metrics.in_flight.dec()


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    """The whole body. Raises Refused where it is too long or too slow."""
    length = headers.get("content-length", "")
    too_long = Refused(413, "too_long", f"A request may have {MOST_BYTES >> 20} MiB.")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise too_long
    found, more = b"", True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "gone", "The request has no end.")
                found += message.get("body", b"")
                more = message.get("more_body", False)
                if len(found) > MOST_BYTES:
                    raise too_long
    except TimeoutError:
        raise Refused(408, "too_slow", "The request took too long to come.") from None
    return found


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _send(refused: Refused, send: Send) -> None:
    headers = {"content-type": "application/json", "connection": "close", **refused.headers}
    pairs = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": json.dumps(refused.body).encode()})


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""

"""The service as a process: where it listens, who may ask, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dspy
import uvicorn

from optimize import lm as lms
from optimize.errors import WorkbenchError
from optimize.secrets import keep_secret
from optimize.serving.app import Service, application
from optimize.serving.following import Following
from optimize.serving.guard import Guard, is_loopback
from optimize.serving.metrics import Metrics
from optimize.stopping import SIGNALS

KEY = "OPTIMIZE_SERVE_KEY"
SHORTEST = 16  # letters of it
GRACE = 20  # seconds more than the LM may take, until what is in flight is given up at the end


def serve(
    root: Path,
    task: str,
    place: tuple[str, int],
    knobs: Mapping[str, Any],
    say: Callable[[str, Following], None],
) -> None:
    """Answer until the process is asked to stop, then finish what is in flight.

    place: host and port; port 0 takes a free one. knobs: as of Following. say: is told the address
    once it listens. Raises WorkbenchError where it cannot listen, has no champion, or lacks a key.
    """
    host, _ = place
    key = _key(host)
    lms.configure(root)
    # what a service is asked is not kept
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    following, metrics = Following(root, task, knobs), Metrics()
    config = following.now.config
    threads = config.in_flight
    service = Service(following, metrics, threads)
    app = application(service, following.now.program.task)
    guarded = Guard(app, metrics, key, is_loopback(host), threads)
    listen(guarded, place, lambda at: say(at, following), int(config.timeout) + GRACE)


def listen(
    guarded: Guard, place: tuple[str, int], say: Callable[[str], None], grace: int = GRACE
) -> None:
    """Answer until the process is asked to stop, then finish what is in flight, for so many
    seconds. place and say as for `serve`.
    """
    host, port = place
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    settings = uvicorn.Config(
        guarded,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    with _listening(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        say(f"http://{address}:{listener.getsockname()[1]}")
        _Server(settings).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn raises the signal that ended it once more, which our own handling of it would take
    for a command that is to stop at once.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {n: signal.getsignal(n) for n in numbers}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _key(host: str) -> str:
    key = os.environ.get(KEY, "")
    if not key and not is_loopback(host):
        raise WorkbenchError(
            f"{host} can be reached from other machines: set {KEY} to a key of {SHORTEST} letters "
            "or more, which requests then bring as `Authorization: Bearer KEY`."
        )
    if key and len(key) < SHORTEST:
        raise WorkbenchError(f"{KEY} has {len(key)} letters; a key has {SHORTEST} or more.")
    if not key.isascii():  # clients send a header's other letters in one encoding or another
        raise WorkbenchError(
            f"{KEY} holds letters beyond ASCII, which clients send in different ways."
        )
    keep_secret(key)
    return key


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise WorkbenchError(
            f"Cannot listen at {host}:{port}: {why}. Name another --port or --host."
        ) from None

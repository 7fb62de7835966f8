"""The end of a command that is asked to stop: soon, whatever hangs, with its run closed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

GRACE = 1.5  # seconds from the first signal until the process ends in any case
LAST = 1.0  # more until the system ends it, where no thread of Python can: an engine may hold them
STOPPED = 130  # the exit code
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

_asked = threading.Event()
_closers: list[Callable[[], object]] = []
_last: list[threading.Timer] = []


def listen(say: Callable[[], object]) -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, and the
    process ends GRACE seconds later if it has not by then: a call that hangs cannot be interrupted.

    say: tells the user, before that. A signal that whoever started the command ignores (nohup, a
    shell's background job) stays ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if not _asked.is_set():
            _asked.set()
            _last.append(threading.Timer(GRACE, _end, (say,)))
            _last[0].daemon = True
            _last[0].start()
            if hasattr(signal, "setitimer"):
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, GRACE + LAST)
        raise KeyboardInterrupt

    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def spared() -> None:
    """The command has heard, and ends by itself."""
    for timer in _last:
        timer.cancel()
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def closing(close: Callable[[], object]) -> Iterator[None]:
    """If the process has to be ended within, `close` is called first."""
    _closers.append(close)
    try:
        yield
    finally:
        _closers.remove(close)


def wait(seconds: float) -> None:
    """Sleep, in any thread, until the command is asked to stop. Raises KeyboardInterrupt then."""
    if _asked.wait(seconds):
        raise KeyboardInterrupt


def _end(say: Callable[[], object]) -> None:
    closed = threading.Thread(target=_close_all, daemon=True)
    closed.start()
    closed.join(GRACE / 3)  # a store that hangs does not keep us either
    with contextlib.suppress(Exception):
        say()
    os._exit(STOPPED)


def _close_all() -> None:
    for close in reversed(_closers):
        with contextlib.suppress(Exception):
            close()

"""Work side by side, in order, ended by the first error. Knows nothing of programs or rows."""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_above: ContextVar[tuple[threading.Event, ...]] = ContextVar("above", default=())


def cores() -> set[int]:
    """Numbers of the cores this process may use; where the system does not tell (macOS, Windows),
    all.
    """
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def usable_cores() -> int:
    return len(cores())


def free_memory() -> int:
    """Bytes that a process may still take; where the system does not tell, 4 GiB."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            told = dict(line.split(":", 1) for line in file)
        return int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 << 30


def own_memory() -> int:
    """Bytes that this process holds, mapped files aside; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            told = dict(line.split(":", 1) for line in file)
        return int(told["RssAnon"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def in_threads(
    work: Callable[[Job], Result], jobs: Iterable[Job], threads: int, ahead: int | None = None
) -> Iterator[Result]:
    """Each job's result, in order; a worker sees the caller's DSPy context. The first error ends
    the jobs not begun and is raised.

    ahead: jobs taken before the first of their results is asked for, at most; None: all of them.

    Where a job itself calls this function, its jobs not begun end with it, so that Ctrl-C waits for
    the calls in flight alone.
    """
    ended = threading.Event()

    def unless_ended(job: Job) -> Result:
        if any(event.is_set() for event in _above.get()):
            raise CancelledError
        _above.set((*_above.get(), ended))
        return work(job)

    pool = ThreadPoolExecutor(threads)
    try:
        begun: deque[Future[Result]] = deque()
        for job in jobs:
            begun.append(pool.submit(contextvars.copy_context().run, unless_ended, job))
            if ahead and len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    except KeyboardInterrupt:
        ended.set()
        pool.shutdown(wait=False, cancel_futures=True)  # what is in flight may hang
        raise
    except BaseException:
        ended.set()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()

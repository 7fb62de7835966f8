"""Work side by side, in order, ended by the first error. Knows nothing of programs or rows."""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

CONTAINER = "/sys/fs/cgroup"
_above: ContextVar[tuple[threading.Event, ...]] = ContextVar("above", default=())


def cores() -> set[int]:
    """Numbers of the cores this process may use; where the system does not tell (macOS, Windows),
    all.
    """
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many, a container's share of them included."""
    quota, _, period = _of_container("cpu.max").partition(" ")
    own = len(cores())
    return min(own, math.ceil(int(quota) / int(period))) if quota.isdecimal() else own


def free_memory() -> int:
    """Bytes that a process may still take, within its container's limit; where the system does not
    tell, 4 GiB.
    """
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            told = dict(line.split(":", 1) for line in file)
        free = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = 4 << 30
    most, taken = _of_container("memory.max"), _of_container("memory.current")
    if not (most.isdecimal() and taken.isdecimal()):
        return free
    # pages of files that were read count as taken, and are given up on demand
    given_up = dict(line.split() for line in _of_container("memory.stat").splitlines())
    return min(free, max(0, int(most) - int(taken) + int(given_up.get("inactive_file", 0))))


def _of_container(name: str) -> str:
    """What control groups (version 2) say of this container; empty where there are none."""
    with contextlib.suppress(OSError):
        return Path(CONTAINER, name).read_text(encoding="ascii").strip()
    return ""


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

"""One command at a time trains on a task, or writes its hand-off."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from optimize import stopping
from optimize.commands.session import Session
from optimize.config import command_line

LOOK = 0.5  # seconds between two looks at whether the task is free


@contextlib.contextmanager
def task_lock(session: Session, command: str) -> Iterator[Session]:
    """Hold the task's folders below mlruns/ while a command writes to them; the system lets go of
    them if the process dies. A second command waits: what the first one asks is then cached for it.

    Two at once would delete each other's hand-off, mix up one checkpoint and pay twice for the same
    answers. Gives the session, with a clock that has not run while it waited.
    """
    path = session.folder("locks").with_suffix(".lock")
    holder = path.with_suffix(".json")  # beside it: on Windows nobody else may read a locked file
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    _acquire(lock, session, holder)
    try:
        shown = command_line(command, session.task.name, session.config.given)
        holder.write_text(json.dumps({"pid": os.getpid(), "command": shown}), encoding="utf-8")
        session.meter.start()
        yield replace(session, start=time.perf_counter())
    finally:
        lock.release()


def _acquire(lock: FileLock, session: Session, holder: Path) -> None:
    """Wait for the lock, and say so. Raises KeyboardInterrupt when the command is stopped."""
    told = False
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            if not told:
                session.watch.noted(
                    f"Task {session.task.name!r} is at work in {_told(holder)}. Waiting until it "
                    "ends; what it asks need not be asked again. Ctrl-C gives up."
                )
            told = True
            stopping.wait(LOOK)


def _told(holder: os.PathLike[str]) -> str:
    try:
        with open(holder, encoding="utf-8") as file:
            found = json.load(file)
        return f"process {found['pid']} ({found['command']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        return "another process"

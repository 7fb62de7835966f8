"""One command at a time trains on a task, or writes its hand-off."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

from filelock import FileLock, Timeout

from optimize.commands.session import Session
from optimize.config import command_line
from optimize.errors import WorkbenchError


@contextlib.contextmanager
def task_lock(session: Session, command: str) -> Iterator[None]:
    """Hold the task's folders below mlruns/ while a command writes to them; the system lets go of
    them if the process dies.

    Two at once would delete each other's hand-off, mix up one checkpoint and pay for two jobs.
    Raises WorkbenchError naming the process that holds them.
    """
    task = session.task.name
    path = session.folder("locks").with_suffix(".lock")
    holder = path.with_suffix(".json")  # beside it: on Windows nobody else may read a locked file
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkbenchError(
            f"Task {task!r} is at work in {_told(holder)}. Wait until it ends, or stop it and give "
            "this command again: what it asked is cached."
        ) from None
    try:
        shown = command_line(command, task, session.config.given)
        holder.write_text(json.dumps({"pid": os.getpid(), "command": shown}), encoding="utf-8")
        yield
    finally:
        lock.release()


def _told(holder: os.PathLike[str]) -> str:
    try:
        with open(holder, encoding="utf-8") as file:
            found = json.load(file)
        return f"process {found['pid']} ({found['command']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        return "another process"

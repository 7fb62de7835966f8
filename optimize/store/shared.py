"""A store that several machines write to: which project a run is of, and what only one of them may
do at a time. MLflow has no locks.
"""

from __future__ import annotations

import hashlib
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from optimize import stopping
from optimize.errors import WorkbenchError
from optimize.store.open import is_shared

PROJECT = "project"  # a run's tag
HELD = ".choosing"  # ends the name of the model that is there while somebody chooses a champion
STALE = 60.0  # seconds after which its maker is taken for dead; choosing takes one or two
LOOK = 0.2  # seconds between two tries
LONGEST = 600.0


def project_id(root: Path) -> str:
    """The same for all commands in this folder of this machine, and for no others."""
    return hashlib.sha256(f"{socket.gethostname()} {root.resolve()}".encode()).hexdigest()[:16]


@contextmanager
def one_at_a_time(store: Any, task: str, root: Path) -> Iterator[None]:
    """Among all that write to a store only one is within, for a task; the others wait. root: the
    project's, whose own store a lock of files guards.

    Two that choose a champion at once would both take over from the one before, and the last to
    write would win, however bad it is. A registered model's name is what a store gives to one
    alone. Raises WorkbenchError after ten minutes.
    """
    if not is_shared():
        with FileLock(root / "mlruns" / f"{task}{HELD}.lock"):
            yield
        return
    name, mine = f"{task}{HELD}", uuid.uuid4().hex
    _take(store, name, mine)
    try:
        yield
    finally:
        _let_go(store, name, mine)


def _take(store: Any, name: str, mine: str) -> None:
    from mlflow.exceptions import MlflowException

    end, seen = time.monotonic() + LONGEST, ("", 0.0)
    while time.monotonic() < end:
        try:
            store.create_registered_model(name, description=mine)
            return
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        holder = _holder(store, name)
        if holder == mine:  # the answer to our own request had been lost
            return
        if holder != seen[0]:
            seen = holder, time.monotonic()
        elif holder and time.monotonic() - seen[1] > STALE:
            _let_go(store, name, holder)
        stopping.wait(LOOK)
    raise WorkbenchError(
        f"The registered model {name!r} has been there for ten minutes: somebody is choosing the "
        "champion, or died doing so. Delete it in MLflow's UI and give the same command again."
    )


def _holder(store: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        return str(store.get_registered_model(name).description)
    return ""


def _let_go(store: Any, name: str, holder: str) -> None:
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        if _holder(store, name) == holder:
            store.delete_registered_model(name)

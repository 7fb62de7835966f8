"""Whose error is it? What a user's metric, module or task file raises, with file, line and row.

Knows no rows and no scores.
"""

from __future__ import annotations

import contextlib
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import dspy

from optimize.errors import UserCodeError
from optimize.secrets import redacted

Result = TypeVar("Result")

# an LM that did not answer, or not in the form asked for: nobody's bug
LM_FAILURES = (dspy.LMError, dspy.AdapterParseError, ConnectionError, TimeoutError)
PACKAGE = Path(__file__).parent
# between a user's module and its LM: what fails there depends on the answer, not on the module
BETWEEN = tuple(Path(dspy.__file__).parent / room for room in ("adapters", "clients"))
LIBRARIES = tuple({Path(path) for path in sysconfig.get_paths().values()})


def run(work: Callable[[], Result], code: object, root: Path) -> Result:
    """The result of `work`, which does nothing but call the user's `code`.

    Raises UserCodeError for an exception of theirs; failures of an LM, and what came from code of
    ours that theirs called, pass as they are.
    """
    try:
        return work()
    except LM_FAILURES:
        raise
    except (Exception, SystemExit) as error:
        # the first two frames are this function and `work`
        trace = error.__traceback__ and error.__traceback__.tb_next
        place, ours = _innermost(trace and trace.tb_next, root)
        if ours:
            raise
        raise UserCodeError(place or defined(code, root), told(error)) from error


def users(error: BaseException, root: Path) -> UserCodeError | None:
    """The user's error behind an exception met anywhere; None where it is not theirs."""
    if isinstance(error, UserCodeError):
        return error
    place, _ = _innermost(error.__traceback__, root)
    mistaken = place and not isinstance(error, LM_FAILURES)
    return UserCodeError(place, told(error)) if mistaken else None


@contextlib.contextmanager
def on_row(row: Callable[[], str]) -> Iterator[None]:
    """Name the row in a user's error that is raised within."""
    try:
        yield
    except UserCodeError as error:
        error.row = row()
        raise


def told(error: BaseException) -> str:
    """The exception on one line."""
    said = redacted(" ".join(str(error).split()))[:300]
    return f"{type(error).__name__}: {said}".removesuffix(": ")


def defined(code: object, root: Path) -> str:
    """File and line of a function, or of a module's `forward`."""
    found = getattr(code, "forward", code)
    try:
        file, (_, line) = inspect.getsourcefile(found), inspect.getsourcelines(found)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return repr(code)
    return f"{_shown(file or '', root)}:{line}"


def _innermost(trace: TracebackType | None, root: Path) -> tuple[str, bool]:
    """(place, whether code of ours was called deeper): the innermost frame that is the user's or
    ours tells whose error it is. place: empty where that is not the user's.
    """
    place, ours, root = "", False, root.resolve()
    for frame, line in traceback.walk_tb(trace):
        file = Path(frame.f_code.co_filename)
        if any(file.is_relative_to(folder) for folder in (PACKAGE, *BETWEEN)):
            place, ours = "", True
        elif file.is_relative_to(root) and not any(map(file.is_relative_to, LIBRARIES)):
            place, ours = f"{_shown(file, root)}:{line}, in {frame.f_code.co_name}", False
    return place, ours


def _shown(file: str | Path, root: Path) -> str:
    path, root = Path(file), root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

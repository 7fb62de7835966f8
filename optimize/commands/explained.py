"""What went wrong, in a line for the user, and whose fault it is."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

from optimize.config import find_root
from optimize.errors import BUG, MISTAKE, BudgetExhausted, LmRefused, StoreFailed, WorkbenchError

# nobody's bug
MACHINE = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
)
FRAMES = 4  # of a trace, enough to find a bug by


def explained(error: BaseException, root: Path | None = None) -> tuple[str, int]:
    """What went wrong, for the user, and the exit code. root: default is the project around the
    current folder.
    """
    if isinstance(error, WorkbenchError | StoreFailed):
        return f"Error: {error}", MISTAKE
    if isinstance(error, LmRefused):
        return f"Error: {error} What was answered is cached.", MISTAKE
    if isinstance(error, BudgetExhausted):
        more = "Give the same command a higher one: what is known is cached."
        return f"Error: {error} {more}", MISTAKE
    if isinstance(error, OSError) and error.errno in MACHINE:
        return f"Error: {error.strerror}: {error.filename}.", MISTAKE
    from optimize import usercode  # imports DSPy

    if type(error).__module__ == "mlflow.exceptions":  # imported by whoever raised it
        from optimize.store.open import without_password

        return f"Error: MLflow's store: {without_password(usercode.told(error))}", MISTAKE

    if found := usercode.users(error, root or find_root()):
        more = "Mend it and give the same command again: what was answered is cached."
        return f"Error: {found} {more} --debug shows the traceback.", MISTAKE
    if isinstance(error, usercode.LM_FAILURES):
        return f"Error: An LM call failed: {usercode.told(error)}", MISTAKE
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return "\n".join(
        [
            f"Error: This is a bug of optimize, not of your task: {usercode.told(error)}",
            *[f"  {frame.filename}:{frame.lineno}, in {frame.name}" for frame in frames],
            "What was answered is cached. Please report these lines with the command you gave; "
            "--debug shows the whole traceback.",
        ]
    ), BUG

"""What can go wrong and is told to the user in a sentence. Knows nothing else of the project."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

MISTAKE, BUG = 2, 70  # exit codes beside 0, met, and 1, not met


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " Did you mean 'tickets'?", with the space before it; empty where no name is near."""
    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


SHOWN = 80  # letters of a value that is shown in an error


def shown(value: object) -> str:
    """What a file or a flag holds, as an error shows it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


class WorkbenchError(Exception):
    """A user's mistake or a missing thing: the message says where, what is wrong and what to do.
    Exit code 2.
    """


class UserCodeError(BaseException):
    """An exception of the user's own metric, module or task file. Exit code 2.

    place: file and line. row: the row it was raised on, once that is known. A BaseException on
    purpose: DSPy's optimizers swallow every `Exception` of a metric and would go on.
    """

    def __init__(self, place: str, problem: str, row: str = "") -> None:
        super().__init__(place, problem, row)
        self.place, self.problem, self.row = place, problem, row

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}{f', on row {self.row}' if self.row else ''}."


class JobLeft(KeyboardInterrupt):
    """Ctrl-C while a provider works on a paid job, which goes on without us.

    cancel: ask the provider to end it.
    """

    def __init__(self, job: str, cancel: Callable[[], object]) -> None:
        super().__init__(job)
        self.job, self.cancel = job, cancel


class BudgetExhausted(BaseException):
    """The hard cap on LM calls is reached.

    A BaseException on purpose: DSPy's optimizers swallow every `Exception` of a call and would go
    on spending.
    """


class LmRefused(BaseException):
    """A provider refuses the key, or the account: no call will fare better, and each would count. A
    BaseException for the same reason. Exit code 2.
    """


class StoreFailed(BaseException):
    """What keeps answers on disk cannot be used. A BaseException, or it would be taken for an LM
    that failed. Exit code 2.
    """


class ShareExhausted(BaseException):
    """One rung has used its share of the calls; the climb goes on with the next. A BaseException
    for the same reason.
    """

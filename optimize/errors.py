"""What can go wrong and is told to the user in a sentence. Knows nothing else of the project."""

from collections.abc import Callable


class WorkbenchError(Exception):
    """A user's mistake or a missing thing: the message says where, what is wrong and what to do.
    Exit code 2.
    """


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


class ShareExhausted(BaseException):
    """One rung has used its share of the calls;

    the climb goes on with the next. A BaseException for the same reason.
    """

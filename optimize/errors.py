"""What can go wrong and is told to the user in a sentence. Knows nothing else of the project."""


class WorkbenchError(Exception):
    """A user's mistake or a missing thing: the message says where, what is wrong and what to do. Exit code 2."""


class BudgetExhausted(BaseException):
    """The hard cap on LM calls is reached.

    A BaseException on purpose: DSPy's optimizers swallow every `Exception` of a call and would go on spending.
    """


class ShareExhausted(BaseException):
    """One rung has used its share of the calls; the climb goes on with the next. A BaseException for the same reason."""

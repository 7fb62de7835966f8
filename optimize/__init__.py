"""A DSPy prompt-optimization workbench: climb a ladder of prompt levers, and fine-tune only where
prompting has plateaued below the target.

    from optimize import Task, Score       # to write a task, programs/NAME.py
    from optimize import load_program      # to use what a run has found

These names are loaded on first use, so that `import optimize` and the command line's help are
quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimize.commands.load import load_program
    from optimize.task import Score, Task

__version__ = "0.2.0"
__all__ = ["Score", "Task", "__version__", "load_program"]

_HOMES = {
    "Score": "optimize.task",
    "Task": "optimize.task",
    "load_program": "optimize.commands.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

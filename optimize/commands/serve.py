"""A registered program as MLflow loads and serves it: MLflow calls `_load_pyfunc` by name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy

from optimize.commands.load import ready, saved
from optimize.errors import WorkbenchError
from optimize.program.exported import answer
from optimize.program.folder import PROGRAM
from optimize.program.program import Program
from optimize.store.model import refusal
from optimize.usercode import LM_FAILURES

UNREAD = "the LM's answer is none of the task's outputs"


class Served:
    """Answers the inputs it is given, one after the other. Keys of the LM come from the
    environment. Answers are kept nowhere: what a service is asked belongs to others, and an answer
    that cannot be read must not come back for ever.
    """

    def __init__(self, folder: Path) -> None:
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
        # whoever serves a model has chosen it, and the key
        found = replace(saved(folder / PROGRAM, folder), elsewhere=False)
        self.program: Program = ready(found)

    def predict(self, asked: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The outputs for each row of a table, or for each of some dicts of inputs.

        Raises MlflowException for a value that its field does not take, and where the LM does not
        answer or not in the form asked for: MLflow would show a client the way here otherwise.
        """
        try:
            return [answer(self.program, row) for row in _rows(asked)]
        except WorkbenchError as error:
            why, blamed = str(error), True
        except dspy.AdapterParseError:  # its text is the answer's
            why, blamed = UNREAD, False
        except LM_FAILURES as error:
            why, blamed = f"the LM did not answer: {type(error).__name__}", False
        raise refusal(why, blamed)


def _rows(asked: Any) -> Iterable[Mapping[str, Any]]:
    if hasattr(asked, "to_dict"):  # a pandas DataFrame
        found: list[dict[str, Any]] = asked.to_dict("records")
        return found
    return [asked] if isinstance(asked, Mapping) else asked


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls with the model's data: a project of one task and its saved program."""
    folder = Path(path)
    sys.path.append(str(folder))  # modules of the project that the task's file imports
    return Served(folder)

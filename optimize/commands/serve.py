"""A registered program as MLflow loads and serves it. Knows no MLflow: that calls `_load_pyfunc`
by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optimize.commands.load import ready, saved
from optimize.program.exported import answer
from optimize.program.folder import PROGRAM
from optimize.program.program import Program


class Served:
    """Answers the inputs it is given, one after the other. Keys of the LM come from the
    environment.
    """

    def __init__(self, folder: Path) -> None:
        # whoever serves a model has chosen it, and the key
        found = replace(saved(folder / PROGRAM, folder), elsewhere=False)
        self.program: Program = ready(found)

    def predict(self, asked: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The outputs for each row of a table, or for each of some dicts of inputs.

        Raises WorkbenchError for a value that its field does not take.
        """
        return [answer(self.program, row) for row in _rows(asked)]


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

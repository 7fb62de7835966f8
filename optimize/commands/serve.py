"""A registered program as MLflow loads and serves it. Knows no MLflow: that calls `_load_pyfunc`
by name.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from optimize import files
from optimize.commands.load import load_program
from optimize.data.fields import field_type
from optimize.errors import WorkbenchError


class Served:
    """Answers the inputs it is given, one after the other. Keys of the LM come from the
    environment.
    """

    def __init__(self, folder: Path) -> None:
        self.program = load_program(folder / "program.json", root=folder)
        self.task = self.program.task

    def predict(self, asked: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The outputs for each row of a table, or for each of some dicts of inputs.

        Raises WorkbenchError for a value that its field does not take.
        """
        outputs = self.task.signature.output_fields
        answers = (self.program(**self._inputs(row)) for row in _rows(asked))
        return [{name: files.plain(answer[name]) for name in outputs} for answer in answers]

    def _inputs(self, row: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, field in self.task.signature.input_fields.items():
            value = row.get(name)
            # a table has no other gap
            missing = isinstance(value, float) and math.isnan(value)
            try:
                found[name] = TypeAdapter(field_type(field)).validate_python(
                    None if missing else value
                )
            except ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"]
                raise WorkbenchError(
                    f"Field {name!r}: {str(value)[:80]!r} does not fit: {said}."
                ) from None
        return found


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

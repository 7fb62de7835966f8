"""A row's inputs, as text and as their types. Knows no files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from optimize.data.fields import field_type
from optimize.errors import WorkbenchError, shown
from optimize.files import plain, to_text
from optimize.task import Task


def input_text(task: Task, row: Mapping[str, Any]) -> str:
    """The row's inputs as one text, for similarity search."""
    return "\n".join(input_texts(task, row))


def input_texts(task: Task, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The row's inputs, a text a field."""
    # a date of a saved program is a text
    return tuple(to_text(plain(row[n])) for n in task.signature.input_fields if n in row)


def typed_inputs(task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
    """The task's inputs out of JSON or a table, as its signature has them.

    Raises WorkbenchError for a value that its field does not take.
    """
    found = {}
    for name, field in task.signature.input_fields.items():
        value = given.get(name)
        # a table has no other gap
        missing = isinstance(value, float) and math.isnan(value)
        try:
            found[name] = TypeAdapter(field_type(field)).validate_python(None if missing else value)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise WorkbenchError(f"Field {name!r}: {shown(value)} does not fit: {said}.") from None
    return found

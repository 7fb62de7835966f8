"""The metric on outputs that no LM gave: gold ones, a baseline's. Asks no LM, whatever the metric
wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from optimize.errors import UserCodeError
from optimize.lm.dspy_door import refusing
from optimize.task import Score, Task


class Unscorable(Exception):
    """The metric needs more than the outputs; the message says what."""


def scores_alone(
    task: Task,
    rows: Sequence[dspy.Example],
    outputs: Sequence[Mapping[str, Any]],
) -> list[Score]:
    """The metric's score of each row with these outputs.

    Raises Unscorable where the metric asks an LM or reads what only a program of the user's own
    gives; UserCodeError where it fails otherwise.
    """
    found = []
    for row, given in zip(rows, outputs, strict=True):
        prediction = dspy.Prediction(**given)
        try:
            with refusing(_Asked()):  # the LM in context, or the metric's own
                found.append(task.score(row, prediction))
        except _Asked:
            raise Unscorable("asks an LM") from None
        except UserCodeError as error:
            name = _lacking(error.__cause__, prediction)
            if task.program is not dspy.Predict and name:
                raise Unscorable(f"reads {name!r}, which only the program gives") from None
            raise
    return found


class _Asked(BaseException):
    """A BaseException, so that no `except Exception` of a metric takes it for an answer."""


def _lacking(error: BaseException | None, prediction: dspy.Prediction) -> str | None:
    """The output that the metric reads and the rows do not have."""
    if isinstance(error, AttributeError) and error.obj is prediction:
        return str(error.name)
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    return key if isinstance(key, str) and key not in prediction else None

"""The metric on outputs that no LM gave: gold ones, a baseline's. Asks no LM, whatever the metric
wants.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from optimize.data.rows import row_hash
from optimize.errors import WorkbenchError
from optimize.lm.dspy_door import refusing
from optimize.task import Score, Task


class Unscorable(Exception):
    """The metric needs more than the outputs; the message says what."""


def scores_alone(
    task: Task,
    rows: Sequence[dspy.Example],
    outputs: Sequence[Mapping[str, Any]],
    places: Mapping[str, str] | None = None,
) -> list[Score]:
    """The metric's score of each row with these outputs.

    places: file and line of the rows, by their hash. Raises Unscorable where the metric asks an LM
    or reads what only a program of the user's own gives; WorkbenchError where it fails otherwise.
    """
    found = []
    for row, given in zip(rows, outputs, strict=True):
        prediction = dspy.Prediction(**given)
        try:
            with refusing(_Asked()):  # the LM in context, or the metric's own
                found.append(task.score(row, prediction))
        except WorkbenchError:
            raise
        except _Asked:
            raise Unscorable("asks an LM") from None
        except Exception as error:
            if task.program is not dspy.Predict and (name := _lacking(error, prediction)):
                raise Unscorable(f"reads {name!r}, which only the program gives") from None
            place = (places or {}).get(row_hash(task, row), "")
            raise WorkbenchError(_told(task, error, place)) from error
    return found


class _Asked(BaseException):
    """A BaseException, so that no `except Exception` of a metric takes it for an answer."""


def _lacking(error: Exception, prediction: dspy.Prediction) -> str | None:
    """The output that the metric reads and the rows do not have."""
    if isinstance(error, AttributeError) and error.obj is prediction:
        return str(error.name)
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    return key if isinstance(key, str) and key not in prediction else None


def _told(task: Task, error: Exception, place: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == task.metric.__code__.co_filename]
    line = lines[-1] if lines else task.metric.__code__.co_firstlineno
    what = " ".join(str(error).split()) or "no message"
    where = f" on {place}" if place else ""
    return (
        f"programs/{task.name}.py:{line}: the metric fails{where}: {type(error).__name__}: {what}."
    )

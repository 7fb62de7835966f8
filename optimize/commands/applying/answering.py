"""One row answered by a program, and many of them in their order. Knows no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dspy

from optimize import usercode
from optimize.data.read import row_inputs
from optimize.data.stream import Given
from optimize.errors import WorkbenchError
from optimize.files import plain
from optimize.lm.metered import one_example
from optimize.lm.usage import Usage
from optimize.program.program import Program
from optimize.scoring.evaluate import taken_confidence
from optimize.threads import in_threads

AHEAD = 32  # rows a thread that may be answered before the first of them is written
UNREAD = 200  # characters told of an answer that could not be read


@dataclass(frozen=True)
class Answer:
    """What became of a row. error: why it has no outputs."""

    outputs: dict[str, Any] = field(default_factory=dict)
    confidence: float | None = None
    error: str = ""
    usage: Usage = Usage()  # noqa: RUF009 (frozen)


Answered = tuple[Given, Answer]


def answers(program: Program, rows: Iterable[Given], threads: int) -> Iterator[Answered]:
    """Each row with its answer, in order; few of them are held at once."""
    work = lambda row: (row, answer(program, row))  # noqa: E731
    return in_threads(work, rows, threads, AHEAD * threads)


def answer(program: Program, row: Given) -> Answer:
    """One row; what keeps it from being answered is in the answer."""
    if row.problem:
        return Answer(error=row.problem)
    try:
        inputs = row_inputs(program.task, row.columns, row.place)
    except WorkbenchError as misfit:
        return Answer(error=str(misfit))
    with one_example() as spent:
        prediction, error = _asked(program, row.place, inputs)
    sure = taken_confidence(prediction, program.task)
    names = program.task.signature.output_fields
    outputs = {} if error else {name: plain(prediction.get(name)) for name in names}
    return Answer(outputs, sure, error, spent.usage())


def _asked(program: Program, place: str, inputs: dict[str, Any]) -> tuple[dspy.Prediction, str]:
    """The prediction, or an empty one and why there is none."""
    try:
        with usercode.on_row(lambda: place):
            return program(**inputs), ""
    except dspy.AdapterParseError as failed:
        said = str(failed.lm_response)[:UNREAD]
        return dspy.Prediction(), f"The answer could not be read: {said}"
    except Exception as failed:
        return dspy.Prediction(), usercode.told(failed)

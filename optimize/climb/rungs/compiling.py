"""DSPy's optimizers, run within a rung's share of the calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import dspy

from optimize.climb.rungs.base import Context, fresh, hushed
from optimize.errors import ShareExhausted
from optimize.lm.dspy_door import evaluating
from optimize.program.program import Program


def compiled(
    optimizer: Callable[[], Any],
    student: Program,
    rows: list[dspy.Example],
    context: Context,
    **given: Any,
) -> Program:
    """What the optimizer, which is made here since some print when they are, makes of a copy of the
    program. Where its share of the calls ends it, or a teacher that cannot write a proposal does,
    the best other program that has answered all of `rows`, its own for comparing, until then.

    Raises what ended it where there is none: before the first evaluation, and with SIMBA, which
    asks no program for all of its rows before its end.
    """
    seen = _Seen(student, len(rows))
    try:
        with hushed(), dspy.context(max_errors=len(context.train)), evaluating(seen.note):
            found: Program = optimizer().compile(fresh(student), **given)
    except (ShareExhausted, dspy.AdapterParseError):
        if seen.best is None:
            raise
        return seen.best
    return found


class _Seen:
    """The best program of those evaluated on so many rows that is not the one begun with."""

    def __init__(self, start: Program, rows: int) -> None:
        self.start, self.began, self.rows = start, _state(start), rows
        self.best: Program | None = None
        self.score = -1.0

    def note(self, program: Program, results: list[Any]) -> None:
        score = sum(float(getattr(given, "score", given)) for *_, given in results)
        if len(results) != self.rows or score <= self.score or _state(program) == self.began:
            return
        # a copy, as an optimizer goes on changing its own; not a whole one, as GEPA's has its calls
        # traced
        self.best, self.score = fresh(self.start), score
        for mine, theirs in zip(self.best.predictors(), program.predictors(), strict=True):
            mine.signature, mine.demos = theirs.signature, list(theirs.demos)


def _state(program: Program) -> str:
    """What an optimizer may change of a program."""
    return json.dumps(program.dump_state()["predictors"], default=str)

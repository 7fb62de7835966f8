"""The runs from which a program's inner steps are taught: the best prompt program's right answers
to train and val rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import dspy

from optimize.climb.rungs.base import steps
from optimize.commands.session import Session
from optimize.errors import BudgetExhausted, ShareExhausted, UserCodeError, WorkbenchError
from optimize.finetune.steps import TraceCount, Traces, count, right_calls, unlabelled
from optimize.program.program import Program, student

LOOPS = 2  # calls a step may take: an answer that cannot be parsed is asked for again


@dataclass(frozen=True)
class Traced:
    """Traces, as far as they could be had, and how many rows they teach from."""

    traces: Traces
    count: TraceCount


def trace_calls(session: Session) -> int:
    """LM calls that the traces may take; none where the rows label every step."""
    if not unlabelled(student(session.task)):
        return 0
    rows = len(session.splits.train) + len(session.splits.val)
    return LOOPS * steps(session.task) * rows


def traced(session: Session, best: Program) -> Traced:
    """Ask the best prompt program for train and val rows again; val comes from the cache.

    Whatever goes wrong is told in the count, because a climb stands behind it that must not be
    lost.
    """
    splits, asking = session.splits, replace(session.asking, repeats=1)
    try:
        with session.meter.share(trace_calls(session)), dspy.context(lm=session.lm):
            session.watch.started("steps of right answers, val")
            val = right_calls(best, splits.val, asking)
            session.watch.started("steps of right answers, train")
            found = Traces(right_calls(best, splits.train, asking), val)
    except (WorkbenchError, UserCodeError, BudgetExhausted, ShareExhausted) as error:
        none = Traces(((),) * len(splits.train), ((),) * len(splits.val))
        return Traced(none, TraceCount(problem=str(error)))
    return Traced(found, count(best, found))

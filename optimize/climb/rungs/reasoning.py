"""Reasoning written out before the answer: the lever where a task takes more than one step."""

from __future__ import annotations

import dspy

from optimize.climb.rungs.base import BOOTSTRAP, Context, Skip, fitting, fresh, hushed
from optimize.lm.thinking import room_to_think
from optimize.program.program import Program, student
from optimize.scoring.metrics import float_metric
from optimize.task import Task

DEMOS = 4


def with_own_steps(task: Task) -> str:
    plain = type(student(task).inner) is dspy.Predict
    return "" if plain else "the program has steps of its own"


def reasoning(incumbent: Program, context: Context) -> Program:
    """dspy.ChainOfThought in place of dspy.Predict: bare, and, where the share allows to compare,
    with demos whose reasoning led the teacher to answers that the metric accepts.
    """
    lm = dspy.settings.lm
    if getattr(lm, "supports_reasoning", False) or room_to_think(lm):
        raise Skip("the LM reasons by itself")
    pool, search = context.halves()
    bare = fresh(incumbent)
    bare.use_reasoning()
    # two calls an example: answers of a new shape may have to be asked for again
    if context.passes(2 * len(search), 2 * context.a_set(DEMOS)) < 2:
        return bare
    with hushed(), dspy.context(max_errors=len(context.train)):
        optimizer = dspy.BootstrapFewShot(
            metric=float_metric(context.task),
            max_bootstrapped_demos=DEMOS,
            max_labeled_demos=0,
            teacher_settings={"lm": context.teacher},
        )
        shown: Program = optimizer.compile(fresh(bare), trainset=pool[:BOOTSTRAP])
    return context.best(fitting([bare, shown], search), search)

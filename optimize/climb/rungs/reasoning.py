"""Reasoning written out before the answer: the lever where a task takes more than one step."""

from __future__ import annotations

import contextlib

import dspy

from optimize.climb.rungs.base import BOOTSTRAP, Context, Skip, compared_on, fitting, fresh, hushed
from optimize.climb.rungs.demos import to_bootstrap
from optimize.errors import ShareExhausted
from optimize.lm.room import written
from optimize.lm.thinking import room_to_think
from optimize.program.program import Program, student
from optimize.scoring.metrics import float_metric
from optimize.task import Task

DEMOS = 4
REASONS = "the LM reasons by itself"


def with_own_steps(task: Task) -> str:
    plain = type(student(task).inner) is dspy.Predict
    return "" if plain else "the program has steps of its own"


def reasoning(incumbent: Program, context: Context) -> Program:
    """dspy.ChainOfThought in place of dspy.Predict: with the demos there are, which show answers
    alone, bare, and, where the share allows to compare, with demos whose reasoning led the teacher
    to answers that the metric accepts.
    """
    if room_to_think(dspy.settings.lm):  # its answers have told so since the climb began
        raise Skip(REASONS)
    pool, search = context.halves()
    candidates = starts(incumbent)
    if _pays(context, len(candidates) + 1, 2 * context.a_set(DEMOS)):
        with contextlib.suppress(ShareExhausted):  # one candidate fewer
            candidates.append(_bootstrapped(candidates[-1], pool, context))
    elif not _pays(context, len(candidates)):
        return candidates[0]
    return context.best_or_first(fitting(candidates, search), search)


def starts(incumbent: Program) -> list[Program]:
    """The program with reasoning: with its demos, if it has any, and bare."""
    bare = fresh(incumbent)
    bare.use_reasoning(written(dspy.settings.lm))
    (before,) = incumbent.predictors()
    if not (before.demos or incumbent.neighbours):
        return [bare]
    shown = fresh(bare)
    shown.neighbours = incumbent.neighbours
    shown.predictors()[0].demos = before.demos
    return [shown, bare]


def _pays(context: Context, candidates: int, once: int = 0) -> bool:
    """Whether the share covers comparing so many. Two calls an example: answers of a new shape may
    have to be asked for again.
    """
    _, search = context.halves()
    return context.passes(2 * compared_on(candidates, len(search)), once) >= 1


def _bootstrapped(bare: Program, pool: list[dspy.Example], context: Context) -> Program:
    rows = to_bootstrap(pool, context)[:BOOTSTRAP]
    with hushed(), dspy.context(max_errors=len(context.train)):
        optimizer = dspy.BootstrapFewShot(
            metric=float_metric(context.task),
            max_bootstrapped_demos=DEMOS,
            max_labeled_demos=0,
            teacher_settings={"lm": context.teacher},
        )
        found: Program = optimizer.compile(fresh(bare), trainset=rows)
    return found

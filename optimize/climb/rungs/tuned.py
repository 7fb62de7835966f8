"""Levers for a program whose LM was tuned. Each makes one program, which val alone judges: of train
rows the LM has learnt the answers, so that every prompt is right on them and none can be chosen.
"""

from __future__ import annotations

import random

from optimize.climb.rungs.base import Context, Skip, fits
from optimize.climb.rungs.demos import FEW, SOME, spread, with_fitting, with_nearest
from optimize.climb.rungs.guide import with_guide
from optimize.climb.rungs.search import proposals, with_instructions
from optimize.program.guide import Guide
from optimize.program.program import Program
from optimize.task import GUIDE


def whole_guide(student: Program, context: Context) -> Program:
    program = with_guide(student, Guide(context.task.guide))
    if student.guide == program.guide:
        raise Skip(f"its prompt has the {GUIDE} already")
    return _readable(program, context, GUIDE)


def nearest(student: Program, context: Context) -> Program:
    """The few rows most like the input, as demos."""
    program = with_nearest(student, context, FEW, context.finders[0])
    return _readable(program, context, f"{FEW} rows as demos")


def drawn(student: Program, context: Context) -> Program:
    """Rows of all labels, the same for every input, as demos."""
    pool, rows = context.halves()
    demos = spread(pool, context.task, SOME, random.Random(context.seed))
    return with_fitting(student, demos, rows)


def instruction(student: Program, context: Context) -> Program:
    """As the teacher would write it, from the present one and a few rows."""
    shown = spread(list(context.train), context.task, FEW, random.Random(context.seed))
    return with_instructions(student, next(proposals(student, context, shown)))


def _readable(program: Program, context: Context, what: str) -> Program:
    if not fits(program, context.halves()[1]):
        raise Skip(f"{what}: longer than this LM's prompts may be")
    return program

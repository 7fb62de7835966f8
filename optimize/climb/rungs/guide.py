"""The task's written guide in the prompt: the cheapest lever, where somebody has written it."""

from __future__ import annotations

import contextlib

import dspy

from optimize import usercode
from optimize.climb.rungs.base import PASSES, Context, Skip, compared_on, fits, fresh
from optimize.climb.rungs.demos import FEW, with_nearest
from optimize.files import to_text
from optimize.program.guide import Guide
from optimize.program.program import Program
from optimize.scoring.evaluate import Asking, evaluate
from optimize.task import GUIDE, Task

MATCHED = 4  # rules that an input is shown, where it is not shown all of them
WORDS = 120  # of a guide that the teacher shortens
LONG = 2 * WORDS  # a shorter guide is not shortened
FAILED = 5  # rows that go wrong without the guide, which the teacher is shown
ROOM = 4 * WORDS  # tokens for its answer


def without_guide(task: Task) -> str:
    return "" if task.guide else f"the task has no {GUIDE}"


def guide(student: Program, context: Context) -> Program:
    """The guide as it was written, the rules in it that fit the input, and what the teacher makes
    of it, each with the demos there are and with the nearest ones.
    """
    _, search = context.halves()
    passes = min(PASSES, context.passes(len(search)))
    versions = [Guide(context.task.guide), Guide(context.task.guide, MATCHED)]
    # what comparing six programs leaves of the passes, but for the teacher's call
    looked = PASSES * len(search) - compared_on(6, len(search)) - 1
    if passes == PASSES and len(context.task.guide.split()) > LONG and looked > 0:
        with contextlib.suppress(*usercode.LM_FAILURES):  # the others need no teacher
            versions.append(Guide(shortened(student, context, search[:looked])))
    programs = [with_guide(student, version) for version in versions]
    if passes > 2:
        programs += [with_nearest(p, context, FEW, context.finders[0]) for p in programs]
    if passes < 2:  # nothing can be compared: val judges it as it was written
        programs = programs[:1]
    fitting = [program for program in programs if fits(program, search)]
    if not fitting:
        raise Skip(f"{GUIDE} is longer than this LM's prompts may be")
    return context.best(fitting, search)


def with_guide(student: Program, found: Guide) -> Program:
    program = fresh(student)
    program.guide = found
    return program


def shortened(student: Program, context: Context, looked: list[dspy.Example]) -> str:
    """The guide in fewer words, as the teacher writes it in view of rows that go wrong without."""
    found = evaluate(student, looked, Asking(context.task, context.threads))
    wrong = [
        e for e, score in zip(looked, found.scores, strict=True) if score is not None and score < 1
    ]
    rows = "\n\n".join(
        "\n".join(f"{name}: {to_text(e[name])}" for name in context.task.fields)
        for e in wrong[:FAILED]
    )
    question = (
        f"A guide says:\n\n{context.task.guide}\n\nRows labelled by it:\n\n{rows}\n\nWrite the "
        f"guide again in at most {WORDS} words. Keep every rule that decides such rows."
    )
    return context.teacher.say(question, max_tokens=ROOM)

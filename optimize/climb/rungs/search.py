"""Our own search: many cheap candidates (demo subsets, their order, formats, instructions), raced
by successive elimination.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator

import dspy

from optimize import usercode
from optimize.climb.rungs.base import Context, fresh
from optimize.climb.rungs.demos import MANY, SOME, spread, starts, with_fitting
from optimize.files import to_text
from optimize.program.program import Program

CANDIDATES = 64
# the constrained ones: a set of demos may work in one and not in the other
FORMATS = ("compact", "json")
PROPOSALS = 2


def demo_search(student: Program, context: Context) -> Program:
    """The best of as many candidates as the share affords; the race makes sixteen cost five passes
    over the search rows, 64 seven.
    """
    pool, search = context.halves()
    passes = context.affordable(len(search), least=2, most=CANDIDATES.bit_length())
    return context.best(
        list(itertools.islice(candidates(student, context, pool, search), 2 ** (passes - 1))),
        search,
    )


def candidates(
    student: Program, context: Context, pool: list[dspy.Example], search: list[dspy.Example]
) -> Iterator[Program]:
    """The student, then draws of demos without end, with its guide and without; among them one
    turned round, one in another format and new instructions.

    pool: rows to draw demos from. search: rows whose prompts must fit.
    """
    rng = random.Random(context.seed)

    def draw(size: int) -> list[dspy.Example]:
        return spread(pool, student.task, size, rng)

    yield student
    *_, bare = starts(student)
    demos = draw(MANY)
    drawn = with_fitting(student, demos, search)
    yield drawn
    yield with_fitting(student, draw(SOME), search)
    if bare is not student:
        yield with_fitting(bare, demos, search)
    yield with_fitting(student, demos[::-1], search)
    for name in FORMATS:
        if name != student.format:
            other = fresh(student)
            other.format = name
            yield with_fitting(other, demos, search)
            if student.neighbours:  # a format may suit the rows that it shows best
                yield other
    for told in proposals(student, context, demos[:3]):
        yield with_instructions(student if student.neighbours else drawn, told)
    for size, start in zip(
        itertools.cycle((MANY, SOME)), itertools.cycle((bare, bare, student, student))
    ):
        yield with_fitting(start, draw(size), search)


def proposals(student: Program, context: Context, shown: list[dspy.Example]) -> Iterator[str]:
    """Instructions as the teacher would write them, from the present ones and a few rows."""
    told = student.predictors()[0].signature.instructions
    rows = "\n\n".join(
        "\n".join(f"{name}: {to_text(e[name])}" for name in student.task.fields) for e in shown
    )
    question = (
        f"An instruction says:\n{told}\n\nRows labelled by an expert:\n{rows}\n\nWrite a better "
        "instruction, in one or two sentences."
    )
    for number in range(1, PROPOSALS + 1):
        options = {"temperature": 1.0, "rollout_id": context.seed + number}
        with contextlib.suppress(*usercode.LM_FAILURES):  # one candidate fewer
            yield context.teacher.say(question, **options)


def with_instructions(student: Program, told: str) -> Program:
    """The program with its first predictor told so."""
    program = fresh(student)
    predictor = program.predictors()[0]
    predictor.signature = predictor.signature.with_instructions(
        told or predictor.signature.instructions
    )
    return program

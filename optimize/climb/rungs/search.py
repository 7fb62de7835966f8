"""Our own search: many cheap candidates (demo subsets, their order, formats, instructions), raced
by successive elimination.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator

import dspy

from optimize import lm as lms
from optimize import usercode
from optimize.climb.rungs.base import Context, fresh
from optimize.climb.rungs.demos import MANY, SOME, spread, starts, with_fitting
from optimize.files import to_json, to_text
from optimize.program.program import Program
from optimize.program.program import student as unclimbed

# the constrained ones: a set of demos may work in one and not in the other
FORMATS = ("compact", "json")
PROPOSALS, HEAT = 2, 1.0
REPEATED = 12  # draws in a row that are known, after which no more come


def demo_search(student: Program, context: Context) -> Program:
    """The best of as many candidates as the share affords; the race makes sixteen cost five passes
    over the search rows, 64 seven.
    """
    pool, search = context.halves()
    context.check_pays(2 * len(search))  # what two candidates take
    found = distinct(candidates(student, context, pool, search))
    many = context.comparable(len(search))
    return context.best(list(itertools.islice(found, many)), search)


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


def distinct(found: Iterator[Program]) -> Iterator[Program]:
    """Each program once; the end where one draw after the other is known: a program that shows no
    row, such as dspy.ReAct, is the same with all demos.
    """
    seen, again = set[str](), 0
    for program in found:
        state = to_json(program.dump_state())
        again = again + 1 if state in seen else 0
        if not again:
            seen.add(state)
            yield program
        elif again == REPEATED:
            return


def proposals(
    student: Program, context: Context, shown: list[dspy.Example]
) -> Iterator[tuple[str, ...]]:
    """An instruction for each step as the teacher would write it, from the present one and a few
    rows.
    """
    rows = "\n\n".join(
        "\n".join(f"{name}: {to_text(e[name])}" for name in student.task.fields) for e in shown
    )
    teacher = lms.proposing(context.teacher, HEAT)
    for number in range(1, PROPOSALS + 1):
        with contextlib.suppress(*usercode.LM_FAILURES):  # one candidate fewer
            yield tuple(
                teacher.say(
                    f"An instruction says:\n{own}\n\nRows labelled by an expert:\n{rows}\n\n"
                    "Write a better instruction, in one or two sentences.",
                    rollout_id=context.seed + number,
                )
                for _, own, _ in instructions(student)
            )


def with_instructions(student: Program, told: tuple[str, ...]) -> Program:
    """The program with its steps told so, each beside what its module tells it."""
    program = fresh(student)
    steps = zip(program.predictors(), instructions(student), told, strict=True)
    for predictor, (before, own, after), new in steps:
        said = f"{before}{new or own}{after}"
        predictor.signature = predictor.signature.with_instructions(said)
    return program


def instructions(student: Program) -> list[tuple[str, str, str]]:
    """Each step's instruction, between what its module writes around it: dspy.ReAct the list of its
    tools and how to end, without which it can use none.
    """
    found = []
    written = _written_around(unclimbed(student.task))
    for predictor, (before, after) in zip(student.predictors(), written, strict=True):
        own = predictor.signature.instructions.removeprefix(before).removesuffix(after)
        found.append((before, own, after))
    return found


def _written_around(program: Program) -> list[tuple[str, str]]:
    """What the modules of a program write before and after the instructions given to them."""
    around = dict[int, tuple[str, str]]()
    for _, module in program.named_sub_modules():
        given = getattr(getattr(module, "signature", None), "instructions", "")
        for predictor in module.predictors() if given else ():
            before, has, after = predictor.signature.instructions.partition(given)
            if has and (before or after):
                around[id(predictor)] = before, after
    return [around.get(id(predictor), ("", "")) for predictor in program.predictors()]

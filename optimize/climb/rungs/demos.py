"""Demos: drawn from the labelled rows, bootstrapped by the teacher, or the nearest ones at call
time.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import Any

import dspy

from optimize.climb.rungs.base import BOOTSTRAP, Context, fits, fitting, fresh
from optimize.climb.rungs.compiling import compiled
from optimize.data.inputs import input_text
from optimize.files import to_json
from optimize.lm.embedder import Embedder
from optimize.program.program import Program
from optimize.program.program import student as unclimbed
from optimize.program.retrieval import Neighbours
from optimize.scoring.metrics import float_metric
from optimize.task import Task

# demos in a drawn set, as far as prompts have room; which are drawn is worth tens of points to a
# small LM
FEW, SOME, MANY = 4, 12, 36
NEAREST = (8, 16, 4, 2)  # the first ones where calls are few


def bootstrapped(student: Program, context: Context) -> Program:
    """DSPy's BootstrapFewShotWithRandomSearch: answers of the teacher that the metric accepts, as
    demos.
    """
    pool, search = context.halves()
    always = 3 * len(search) + context.a_set()  # zero-shot, labelled only, one unshuffled demo set
    each = len(search) + context.a_set()
    candidates = context.affordable(each, least=1, most=16, overhead=always)
    rows = to_bootstrap(pool, context)
    shown = min(MANY, max(SOME, len(labels(pool, context.task))))
    drawn = with_fitting(student, rows[:shown], search)
    most = max(len(predictor.demos) for predictor in drawn.predictors())
    optimizer = partial(
        dspy.BootstrapFewShotWithRandomSearch,
        metric=float_metric(context.task),
        max_bootstrapped_demos=4,
        max_labeled_demos=most,
        num_candidate_programs=candidates,
        num_threads=context.threads,
        max_errors=len(context.train),
        teacher_settings={"lm": context.teacher},
    )
    bare = with_demos(student, [])
    return compiled(optimizer, bare, search, context, trainset=rows, valset=search)


def without_step_for_rows(task: Task) -> str:
    held = set(task.fields)
    if any(held >= set(p.signature.output_fields) for p in unclimbed(task).predictors()):
        return ""
    return "no step of the program answers with what a row holds"


def nearest(student: Program, context: Context) -> Program:
    """The k labelled rows most like the input, looked up at call time; k, the format that shows
    them, whether the guide stays where there is one, and whether words or an embedder tell what is
    like it, are chosen on train rows, each shown others alone; where there are no calls for that,
    the likeliest.
    """
    rows = context.unheld_rows()
    many = context.comparable(len(rows))
    return context.best_or_first(likeliest(student, context, many, rows), rows)


def likeliest(
    student: Program, context: Context, many: int, rows: list[dspy.Example]
) -> list[Program]:
    """So many programs with the nearest rows that leave room for the rows, the likeliest first; the
    likeliest of all where none does.
    """
    found = (
        with_nearest(shown, context, k, finder)
        for k in NEAREST
        for start in starts(student)
        for shown in in_formats(start, context)
        for finder in context.finders
    )
    return fitting(found, rows, many)


def in_formats(student: Program, context: Context) -> list[Program]:
    """The program, and the same in the format that demos may suit better: what an LM does best
    without a demo, which the format was chosen by, tells little of what it does best with some.
    Chat is none for an LM that does not keep to it: its answers are asked for twice.
    """
    other = fresh(student)
    other.format = "chat" if student.format == "compact" else "compact"
    return [p for p in (student, other) if p.format != "chat" or context.writes_chat]


def with_synthetic(student: Program, context: Context) -> Program:
    """Demos once more, now from train rows and synthetic ones together: the nearest ones and drawn
    ones, with the guide and without. What is best is told on held-back train rows, none of them
    synthetic.
    """
    pool, search = context.halves()
    both = replace(context, train=(*context.train, *context.synthetic))
    context.check_pays(len(search))
    many = context.comparable(len(search), 2 * len(NEAREST))  # each in its two formats
    rng = random.Random(context.seed)
    drawn = spread([*pool, *context.synthetic], context.task, SOME, rng)
    candidates = likeliest(student, both, many, search)
    candidates += [with_fitting(start, drawn, search) for start in starts(student)]
    return context.best(fitting(candidates, search), search)


def starts(student: Program) -> list[Program]:
    """The program, and if it has a guide the same without: demos may do better what a guide did,
    and a small LM does better with one of them than with both.
    """
    if not student.guide:
        return [student]
    bare = fresh(student)
    bare.guide = None
    return [student, bare]


def with_nearest(
    student: Program, context: Context, k: int, finder: Embedder | None = None
) -> Program:
    """The program with the k train rows most like its input as demos, in place of what it had."""
    program = with_demos(student, [])
    rows = tuple(_fields(program, e) for e in context.train)
    texts = tuple(input_text(context.task, row) for row in rows)
    program.neighbours = Neighbours(k, texts, rows, finder)
    return program


def with_demos(student: Program, demos: list[dspy.Example]) -> Program:
    """The program with these demos on every predictor whose outputs they hold, in place of what it
    had.
    """
    program = fresh(student)
    program.neighbours = None
    for predictor in program.predictors():
        usable = [
            demo for demo in demos if set(predictor.signature.output_fields) <= set(demo.keys())
        ]
        shown = [program.with_passages(_fields(program, demo)) for demo in usable]
        predictor.demos = [dspy.Example(**demo) for demo in shown]
    return program


def _fields(program: Program, row: dspy.Example) -> dict[str, Any]:
    """What a prompt may show of a row, which may have columns of any kind beside it."""
    steps = (p.signature.fields for p in program.predictors())
    names = set(program.task.fields).union(*steps)
    return {name: value for name, value in dict(row).items() if name in names}


def with_fitting(student: Program, demos: list[dspy.Example], rows: list[dspy.Example]) -> Program:
    """The program with as many of the demos as leave room for each of the rows."""
    program = with_demos(student, demos)
    while len(demos) > 1 and not fits(program, rows):
        demos = demos[:-1]
        program = with_demos(student, demos)
    return program


def to_bootstrap(pool: list[dspy.Example], context: Context) -> list[dspy.Example]:
    """The rows that a teacher answers for demos, and of which labelled demos are taken: of every
    label one, and BOOTSTRAP in any case.

    Rungs are sized for BOOTSTRAP of them in each demo set: a set is done with its first few right
    answers, so that only a teacher that is right on less than one row in six is asked for more.
    """
    size = max(BOOTSTRAP, len(labels(pool, context.task)))
    return spread(pool, context.task, size, random.Random(context.seed))


def labels(pool: list[dspy.Example], task: Task) -> dict[str, list[dspy.Example]]:
    """The rows of each label; all of them as one where a task has none."""
    found: dict[str, list[dspy.Example]] = defaultdict(list)
    for example in pool:
        found[to_json(example[task.label]) if task.label else ""].append(example)
    return found


def spread(
    pool: list[dspy.Example], task: Task, size: int, rng: random.Random
) -> list[dspy.Example]:
    """A random draw that takes every label in turn, so that a few demos show as many labels as they
    can.
    """
    by_label = labels(rng.sample(pool, len(pool)), task)
    drawn: list[dspy.Example] = []
    order = rng.sample(sorted(by_label), len(by_label))
    while len(drawn) < min(size, len(pool)):
        drawn += [by_label[label].pop() for label in order if by_label[label]]
    return drawn[:size]

"""Passages of the task's corpus in the prompt: the lever where knowledge is missing."""

from __future__ import annotations

import itertools
import random

import dspy

from optimize.climb.rungs.base import Context, fitting, fresh
from optimize.climb.rungs.demos import FEW, spread, with_fitting, with_nearest
from optimize.program.program import Program, student
from optimize.program.retrieval import Passages
from optimize.task import Task

SIZES = (1, 3)


def without_corpus(task: Task) -> str:
    if not task.corpus:
        return "the task has no corpus.jsonl"
    own = type(student(task).inner)
    return "" if own in (dspy.Predict, dspy.ChainOfThought) else "its program asks for none"


def passages(incumbent: Program, context: Context) -> Program:
    """The k best passages at call time, with the demos there are, with drawn ones and with the
    nearest.

    Demos show how to use passages, so those that an incumbent without passages was best with need
    not be best here.
    """
    corpus = context.task.corpus
    assert corpus, without_corpus(context.task)
    pool, search = context.halves()
    sizes = SIZES[: context.affordable(3 * len(search), least=1, most=len(SIZES))]
    drawn = spread(pool, context.task, FEW, random.Random(context.seed))
    candidates = []
    for k, finder in itertools.product(sizes, context.finders):
        candidate = fresh(incumbent)
        candidate.use_passages(Passages(k, corpus, finder))
        candidates += [
            candidate,
            with_fitting(candidate, drawn, search),
            with_nearest(candidate, context, FEW, finder),
        ]
    return context.best(fitting(candidates, search), search)

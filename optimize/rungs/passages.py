"""Passages of the task's corpus in the prompt: the lever where knowledge is missing."""

from __future__ import annotations

import math
from dataclasses import replace

from optimize.program import Program
from optimize.retrieval import Passages
from optimize.rungs.base import Context, Skip, fresh
from optimize.rungs.demos import labelled

SIZES = (1, 3)


def passages(student: Program, context: Context) -> Program:
    """The k best passages by BM25 at call time, alone and with a few labelled demos that show how to use them."""
    if not context.task.corpus:
        raise Skip("the task has no corpus.jsonl")
    _, search = context.halves()
    sizes = SIZES[: context.affordable(3 * len(search), least=1, most=len(SIZES))]
    candidates = []
    for k in sizes:
        candidate = fresh(student)
        candidate.use_passages(Passages(k, context.task.corpus))
        candidates += [candidate, labelled(candidate, _only(context, 2 * len(search) * math.ceil(context.calls)))]
    return max(candidates, key=lambda candidate: context.search_score(candidate, search))


def _only(context: Context, budget: int) -> Context:
    return replace(context, budget=budget)

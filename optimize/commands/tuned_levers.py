"""Weights and prompts together: the likeliest levers of the climb, pulled on a tuned LM."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import dspy

from optimize.climb.climb import on_top
from optimize.climb.observer import Attempt
from optimize.climb.rungs import on_tuned
from optimize.climb.rungs.base import least_calls
from optimize.climb.verdict import WEIGHTS
from optimize.commands.session import Session
from optimize.scoring.evaluation import Evaluation
from optimize.stats.intervals import paired_gain

ASIDE = 1  # calls of a lever beside the val rows: an instruction that the teacher writes


@dataclass(frozen=True)
class Levered:
    """What came of it as one attempt against the best prompt program, and lever by lever, each
    against the tuned LM's best program of its time.
    """

    attempt: Attempt
    levers: tuple[Attempt, ...] = ()


def levered(
    session: Session, name: str, start: Attempt, prompt_val: Evaluation, after: int
) -> Levered:
    """The levers on the tuned LM's better program on val, where that is better than the best prompt
    program.

    name: the attempt's. prompt_val: the best prompt program's outcomes on val. after: LM calls to
    leave, beside those for the test rows.
    """
    before, began = session.meter.usage(), time.perf_counter()
    setup = session.setup(after)
    fitting = on_tuned(session.task, session.config.without)
    need = math.ceil(start.calls * setup.repeats * len(setup.splits.val)) + ASIDE
    left = max(0, setup.left(start, start))
    why = f"a lever on the tuned LM takes {need} LM calls, {left} are left"
    if lacking := _needless(start) or ("" if left >= need else why):
        return Levered(Attempt(name, WEIGHTS, skipped=lacking))
    assert start.program
    with dspy.context(lm=start.program.lm):
        levers = on_top(setup, fitting[: left // need], start, session.watch)
    levers += tuple(
        Attempt(rung.name, rung.family, skipped=why, starved=True)
        for rung in fitting[left // need :]
    )
    usage, seconds = session.meter.usage() - before, time.perf_counter() - began
    best = next((lever for lever in reversed(levers) if lever.promoted), None)
    if best is None:
        why = f"the tuned LM does no better on val with {_names(levers)}"
        return Levered(Attempt(name, WEIGHTS, skipped=why, usage=usage, seconds=seconds), levers)
    assert best.evaluation
    gain = paired_gain(prompt_val.scores, best.evaluation.scores)
    made = best.program, best.evaluation, gain, usage, seconds
    return Levered(Attempt(name, WEIGHTS, *made, calls=best.calls), levers)


def lever_calls(session: Session) -> int:
    """LM calls that all levers take which fit the task."""
    rows = session.config.repeats * len(session.splits.val) * least_calls(session.task)
    fitting = on_tuned(session.task, session.config.without)
    return sum(rung.judged(rows) + ASIDE for rung in fitting)


def _needless(start: Attempt) -> str:
    """Why nothing is to be gained; empty where something may be."""
    assert start.evaluation and start.gain
    if start.gain.mean <= 0:
        return "the tuned LM is no better on val than the best prompt program"
    if start.evaluation.interval.mean >= 1:
        return "the tuned LM is right on every val row"
    return ""


def _names(levers: Sequence[Attempt]) -> str:
    names = [lever.rung for lever in levers if lever.evaluation]
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "any lever"

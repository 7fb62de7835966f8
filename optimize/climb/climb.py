"""Climb: try rungs, race each result against the incumbent on val, promote, stop. Knows nothing of
MLflow or screens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from optimize import usercode
from optimize.climb.observer import Attempt, Observer
from optimize.climb.rungs import Context, Rung, Skip, Starved
from optimize.climb.rungs.base import PASSES, searched
from optimize.climb.verdict import COVERAGE, Decision, History, Tried, best_of, decide, promotes
from optimize.data.rows import Splits
from optimize.errors import BudgetExhausted, ShareExhausted, WorkbenchError
from optimize.lm.meter import Meter, MeteredLM
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate, race
from optimize.stats.intervals import paired_gain
from optimize.task import Task

SLACK = 1.25  # a rung is sized for its share and stopped hard this far beyond it


@dataclass(frozen=True)
class Climb:
    """All attempts in order, the best of those it built on, and why the climb stopped."""

    attempts: tuple[Attempt, ...]
    best: Attempt
    decision: Decision
    history: History

    @property
    def levers(self) -> dict[str, float]:
        """The rungs that made the best program, in order, each with its gain."""
        until = next(n for n, a in enumerate(self.attempts) if a is self.best)
        return {a.rung: a.gain.mean for a in self.attempts[: until + 1] if a.promoted and a.gain}


@dataclass(frozen=True)
class Setup:
    """What a climb runs on. after: LM calls that must be left when it ends, beside those for the
    test rows.

    repeats: how often each val and test row is asked.
    """

    task: Task
    splits: Splits
    teacher: MeteredLM
    meter: Meter
    target: float
    threads: int
    seed: int
    after: int = 0
    repeats: int = 1

    def asking(self, watch: Observer) -> Asking:
        return Asking(self.task, self.threads, self.repeats, watch.scored)

    def left(self, baseline: Attempt, best: Attempt) -> int:
        """LM calls the climb may still make: baseline and best program are yet to answer the test
        rows.
        """
        return (
            self.meter.remaining()
            - self.after
            - int(self.repeats * len(self.splits.test) * (baseline.calls + best.calls))
        )


def climb(setup: Setup, rungs: Sequence[Rung], watch: Observer) -> Climb:
    """Try the rungs in order until the verdict is in. The task LM is the one in DSPy's context."""
    attempts = [_baseline(setup, watch)]
    incumbent = attempts[0]
    for number, rung in enumerate((*rungs, None)):
        scored = [a for a in attempts if a.evaluation]
        tried = tuple(_tried(a) for a in scored)
        best = scored[best_of(tried)]
        left, rungs_left = setup.left(attempts[0], best), len(rungs) - number
        starved = sum(a.starved for a in attempts)
        asked = [a.usage.asked for a in scored[1:]] or [scored[0].usage.asked]
        budget_left = left > 0 and (rung is not None or not starved)
        history = History(
            tried,
            setup.target,
            rungs_left + starved,
            budget_left,
            rung_calls=sum(asked) // len(asked),
        )
        watch.decided(history)
        decision = decide(history)
        if decision.verdict != "improving" or rung is None:
            break
        watch.started(rung.name)
        attempt = _try(setup, rung, incumbent, left, rungs_left, watch)
        incumbent = attempt if attempt.promoted else incumbent
        attempts.append(attempt)
        watch.finished(attempt)
    return Climb(tuple(attempts), best, decision, history)


def _baseline(setup: Setup, watch: Observer) -> Attempt:
    """The zero-shot student.

    Without a score for it there is nothing to climb from, so failures are the caller's.
    """
    watch.started("zero_shot")
    before, start = setup.meter.usage(), time.perf_counter()
    program = student(setup.task)
    try:
        evaluation = evaluate(program, setup.splits.val, setup.asking(watch))
    except BudgetExhausted as error:
        need = 2 * setup.repeats * len(setup.splits.val)
        raise WorkbenchError(
            f"{error} Not even the baseline fits: it needs up to {need} calls."
        ) from None
    usage = setup.meter.usage() - before
    calls = usage.asked / len(evaluation.outcomes) / setup.repeats
    seconds = time.perf_counter() - start
    attempt = Attempt(
        "zero_shot",
        "baseline",
        program,
        evaluation,
        usage=usage,
        seconds=seconds,
        promoted=True,
        calls=calls,
    )
    watch.finished(attempt)
    return attempt


def _try(
    setup: Setup, rung: Rung, incumbent: Attempt, left: int, rungs_left: int, watch: Observer
) -> Attempt:
    """Pull one lever on a copy of the incumbent and race the result. Whatever happens is an
    Attempt.

    left: LM calls for this rung and the ones after it. Its share is up to twice an equal one: cheap
    rungs come first, what they leave or skip goes to the later ones, and most climbs end before the
    last. Where that is too little to do anything with, the rung takes what it needs: a few rungs
    done are worth more than all of them begun.
    """
    assert incumbent.program and incumbent.evaluation
    spent, start = setup.meter.usage(), time.perf_counter()
    attempt = Attempt(rung.name, rung.family)
    calls = max(1.0, incumbent.calls)
    val = math.ceil(calls * len(setup.splits.val) * setup.repeats)
    need = val + math.ceil(calls * PASSES * searched(len(setup.splits.train)))
    share = max(2 * left // (rungs_left + 1), min(left, need))
    try:
        budget = share - val
        if budget <= 0:
            raise Starved(
                f"its share of {share} LM calls does not cover the {len(setup.splits.val)} val rows"
            )
        context = Context(
            setup.task, setup.splits.train, setup.teacher, budget, calls, setup.threads, setup.seed
        )
        shown = partial(watch.scored, note="LM calls at most")
        with setup.meter.share(min(int(budget * SLACK), left - val), shown):
            program = rung.pull(incumbent.program, context)
        pulled = setup.meter.usage()
        evaluation = race(program, incumbent.evaluation, setup.splits.val, setup.asking(watch))
        gain = paired_gain(incumbent.evaluation.scores, evaluation.scores)
        calls = (setup.meter.usage() - pulled).asked / len(evaluation.outcomes) / setup.repeats
        whole = (
            len(evaluation.outcomes) == len(setup.splits.val) and evaluation.coverage >= COVERAGE
        )
        promoted = whole and promotes(gain, calls < incumbent.calls)
        attempt = replace(
            attempt,
            program=program,
            evaluation=evaluation,
            gain=gain,
            promoted=promoted,
            calls=calls,
        )
    except Skip as skip:
        attempt = replace(attempt, skipped=str(skip), starved=isinstance(skip, Starved))
    except (BudgetExhausted, ShareExhausted) as error:
        attempt = replace(attempt, error=str(error))
    except Exception as error:  # a rung that crashes is an outcome; the climb goes on
        attempt = replace(attempt, error=usercode.told(error))
    return replace(attempt, usage=setup.meter.usage() - spent, seconds=time.perf_counter() - start)


def _tried(attempt: Attempt) -> Tried:
    assert attempt.evaluation
    return Tried(
        attempt.rung, attempt.family, attempt.evaluation.scores, attempt.promoted, attempt.calls
    )

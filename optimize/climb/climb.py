"""Climb: try rungs, race each result against the incumbent on val, promote, stop; then ask the
programs that may be the best one on more rows. Knows nothing of MLflow or screens.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import dspy

from optimize import usercode
from optimize.climb.judging import compared, still_reached
from optimize.climb.observer import Attempt, Observer
from optimize.climb.rungs import Context, Rung, Skip, Starved
from optimize.climb.rungs.base import PASSES, searched
from optimize.climb.verdict import (
    COVERAGE,
    Decision,
    History,
    Tried,
    contenders,
    decide,
    errors_asked,
    is_cheaper,
    promotes,
)
from optimize.data.judging_rows import lent
from optimize.data.rows import Splits, row_hash
from optimize.errors import BudgetExhausted, ShareExhausted, WorkbenchError
from optimize.files import to_json
from optimize.lm.meter import Meter, MeteredLM
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, Evaluation, evaluate, race
from optimize.stats.intervals import paired_gain
from optimize.task import Task

SLACK = 1.25  # a rung is sized for its share and stopped hard this far beyond it
FINALISTS = 2  # programs for which calls are kept to ask them on the judging rows beyond val
KEPT = 0.2  # of the calls left, at most, for that


@dataclass(frozen=True)
class Climb:
    """All attempts in order; the programs that may be the best one, the one to end with first; and
    why the climb stopped.
    """

    attempts: tuple[Attempt, ...]
    close: tuple[Attempt, ...]
    decision: Decision
    history: History

    @property
    def best(self) -> Attempt:
        return self.close[0]

    @property
    def levers(self) -> dict[str, float]:
        """The rungs that made the best program, in order, each with its gain."""
        until = next(n for n, a in enumerate(self.attempts) if a is self.best)
        made = [a for a in self.attempts[:until] if a.promoted] + [self.best]
        return {a.rung: a.gain.mean for a in made if a.gain}


@dataclass(frozen=True)
class Setup:
    """What a climb runs on. after: LM calls that must be left when it ends, beside those for the
    test rows.

    repeats: how often each val and test row is asked. rivals, constant, varied: as History has
    them.
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
    rivals: tuple[tuple[float | None, ...], ...] = ()
    constant: float = -1.0
    varied: bool = True

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
    """Try the rungs in order until the verdict is in. The task LM is the one in DSPy's context.

    A rung whose share of the calls is too small comes again at the end, with what others left.
    """
    climbing = _Climbing(setup, watch)
    queue, deferred = list(rungs), set[str]()
    while True:
        while queue and (why := queue[0].unfit(setup.task)):
            climbing.add(Attempt(queue[0].name, queue.pop(0).family, skipped=why))
        decision = climbing.decided(len(queue))
        if decision.verdict != "improving":
            break
        rung = queue.pop(0)
        watch.started(rung.name)
        attempt = climbing.tried(rung, len(queue) + 1)
        if attempt.starved and rung.name not in deferred:
            deferred.add(rung.name)
            queue.append(rung)
            continue
        climbing.add(attempt)
    close = contenders(climbing.history.tried, climbing.history.val)
    return Climb(
        tuple(climbing.attempts),
        tuple(climbing.scored[n] for n in close),
        decision,
        climbing.history,
    )


class _Climbing:
    """A climb under way: the attempts so far, and the rows they are judged on.

    learn: train rows that rungs may use; the others judge, beyond val, until the verdict is in.
    """

    def __init__(self, setup: Setup, watch: Observer) -> None:
        self.setup, self.watch = setup, watch
        self.learn, spare = lent(setup.task, setup.splits)
        self.rows = (*setup.splits.val, *spare)
        self.val = len(setup.splits.val)
        self.attempts = [_baseline(setup, watch)]
        self.incumbent = self.attempts[0]

    @property
    def scored(self) -> list[Attempt]:
        return [a for a in self.attempts if a.evaluation]

    def add(self, attempt: Attempt) -> None:
        self.incumbent = attempt if attempt.promoted else self.incumbent
        self.attempts.append(attempt)
        self.watch.finished(attempt)

    def decided(self, queued: int) -> Decision:
        """The verdict as it stands, after more rows where it hangs on them."""
        self.history = self._history(queued)
        self.history = still_reached(self.history, len(self.rows), self._ask)
        decision = decide(self.history)
        if decision.verdict not in ("reached", "improving"):
            self.history = compared(self.history, len(self.rows), self._ask)
            decision = decide(self.history)
        self.watch.decided(self.history)
        return decision

    def _history(self, queued: int) -> History:
        setup = self.setup
        tried = tuple(_tried(a, setup.task) for a in self.scored)
        starved = sum(a.starved for a in self.attempts)
        asked = [a.usage.asked for a in self.scored[1:]] or [self.scored[0].usage.asked]
        return History(
            tried,
            setup.target,
            self.val,
            queued + starved,
            budget_left=queued > 0 and self._left(tried) > 0,
            rung_calls=sum(asked) // len(asked),
            rivals=setup.rivals,
            constant=setup.constant,
            varied=setup.varied,
            rows=tuple(row_hash(setup.task, e) for e in setup.splits.val),
        )

    def _left(self, tried: Sequence[Tried]) -> int:
        """LM calls for the rungs to come: some are kept for the judging rows beyond val."""
        best = self.scored[contenders(tried, self.val)[0]]
        left = self.setup.left(self.attempts[0], best)
        more = FINALISTS * (len(self.rows) - self.val) * best.calls * self.setup.repeats
        return left - int(min(more, KEPT * max(0, left)))

    def _ask(self, number: int, start: int, end: int) -> tuple[float | None, ...] | None:
        """One program's scores on more judging rows; None where the calls do not suffice."""
        attempt, setup = self.scored[number], self.setup
        need = math.ceil(attempt.calls * (end - start) * setup.repeats)
        if setup.left(self.attempts[0], attempt) < need:
            return None
        assert attempt.program
        before, began = setup.meter.usage(), time.perf_counter()
        self.watch.started(f"{attempt.rung} on rows {start + 1} to {end}")
        try:
            found = evaluate(attempt.program, self.rows[start:end], setup.asking(self.watch))
        except (BudgetExhausted, WorkbenchError):
            return None
        longer = replace(
            attempt,
            beyond=Evaluation(attempt.beyond.outcomes + found.outcomes),
            usage=attempt.usage + (setup.meter.usage() - before),
            seconds=attempt.seconds + time.perf_counter() - began,
        )
        self.attempts = [longer if a is attempt else a for a in self.attempts]
        self.incumbent = longer if self.incumbent is attempt else self.incumbent
        return found.scores

    def tried(self, rung: Rung, rungs_left: int) -> Attempt:
        left = self._left(self.history.tried)
        return _try(self.setup, rung, self.incumbent, self.learn, left, rungs_left, self.watch)


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
    setup: Setup,
    rung: Rung,
    incumbent: Attempt,
    learn: tuple[dspy.Example, ...],
    left: int,
    rungs_left: int,
    watch: Observer,
) -> Attempt:
    """Pull one lever on a copy of the incumbent and race the result. Whatever happens is an
    Attempt.

    left: LM calls for this rung and the ones after it. Its share is an equal one: cheap rungs come
    first, and what they leave or skip goes to the later ones. Where that is too little to do
    anything with, the rung takes what it needs: a few rungs done are worth more than all of them
    begun.
    """
    assert incumbent.program and incumbent.evaluation
    spent, start = setup.meter.usage(), time.perf_counter()
    attempt = Attempt(rung.name, rung.family)
    calls, rows = max(1.0, incumbent.calls), setup.splits.val
    val = math.ceil(calls * len(rows) * setup.repeats)
    need = val + math.ceil(calls * PASSES * searched(len(learn)))
    share = max(left // rungs_left, min(left, need))
    try:
        budget = share - val
        if budget <= 0:
            raise Starved(f"its share of {share} LM calls does not cover the {len(rows)} val rows")
        context = Context(
            setup.task, learn, setup.teacher, budget, calls, setup.threads, setup.seed
        )
        shown = partial(watch.scored, note="LM calls at most")
        with setup.meter.share(min(int(budget * SLACK), left - val), shown):
            program = rung.pull(incumbent.program, context)

        def errors(calls: float) -> float:
            return errors_asked(is_cheaper(calls, incumbent.calls))

        pulled = setup.meter.usage()
        evaluation = race(program, incumbent.evaluation, rows, setup.asking(watch), errors)
        gain = paired_gain(incumbent.evaluation.scores, evaluation.scores)
        calls = (setup.meter.usage() - pulled).asked / len(evaluation.outcomes) / setup.repeats
        whole = len(evaluation.outcomes) == len(rows) and evaluation.coverage >= COVERAGE
        promoted = whole and promotes(gain, is_cheaper(calls, incumbent.calls))
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


def _tried(attempt: Attempt, task: Task) -> Tried:
    assert attempt.evaluation
    scores = attempt.evaluation.scores + attempt.beyond.scores
    same = _same(attempt.evaluation, task)
    return Tried(attempt.rung, attempt.family, scores, attempt.promoted, attempt.calls, same)


def _same(found: Evaluation, task: Task) -> float:
    """Share of the answers that are equal to the commonest one."""
    names = list(task.signature.output_fields)
    answers = Counter(
        to_json({n: o.answer.get(n) for n in names})
        for o in found.outcomes
        if o.score is not None and not o.error
    )
    return max(answers.values()) / answers.total() if answers else 0.0

"""Climb: try rungs, race each result against the incumbent on val, promote, stop; then ask the
programs that may be the best one on more rows. Knows nothing of MLflow or screens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import dspy

from optimize.climb.attempts import OFTEN, baseline, calls_for_one, demand, on_record, tried_rung
from optimize.climb.judging import compared, still_reached
from optimize.climb.observer import Attempt, Observer
from optimize.climb.rungs import Rung, rows_that_compare
from optimize.climb.rungs.base import least_calls
from optimize.climb.rungs.sizes import Demand
from optimize.climb.setup import Setup
from optimize.climb.verdict import (
    AGAIN,
    Decision,
    History,
    Tried,
    contenders,
    decide,
)
from optimize.data.judging_rows import lent
from optimize.data.rows import row_hash
from optimize.errors import BudgetExhausted, WorkbenchError
from optimize.lm.thinking import room_to_think
from optimize.program.program import to_text
from optimize.scoring.evaluate import evaluate
from optimize.scoring.evaluation import Evaluation

FINALISTS = 2  # programs for which calls are kept to ask them on the judging rows beyond val
KEPT = 0.2  # of the calls left, at most, for that


@dataclass(frozen=True)
class Climb:
    """All attempts in order; the programs that may be the best one, the one to end with first; why
    the climb stopped; and the levers that had too few calls, or none.
    """

    attempts: tuple[Attempt, ...]
    close: tuple[Attempt, ...]
    decision: Decision
    history: History
    left: tuple[str, ...] = ()

    @property
    def best(self) -> Attempt:
        return self.close[0]

    @property
    def untried(self) -> list[str]:
        """The levers that might have done something and have no score, each with why in a word."""
        names = {a.rung for a in self.attempts}
        last = [a for a in self.attempts if a.rung + AGAIN not in names]
        return [
            f"{a.rung} ({'failed' if a.error else 'skipped'})"
            for a in last
            if not (a.evaluation or a.unfit) and (a.error or not a.rung.endswith(AGAIN))
        ]

    @property
    def levers(self) -> dict[str, float]:
        """The rungs that made the best program, in order, each with its gain."""
        until = next(n for n, a in enumerate(self.attempts) if a is self.best)
        made = [a for a in self.attempts[:until] if a.promoted] + [self.best]
        return {a.rung: a.gain.mean for a in made if a.gain}


def climb(setup: Setup, rungs: Sequence[Rung], watch: Observer) -> Climb:
    """Try the rungs in order until the verdict is in. The task LM is the one in DSPy's context.

    Each time the first one comes for which what is useful to it is left, or else the first one,
    with what there is: that is no whole try, but calls that nobody makes are none at all. Then
    those come again that had no whole try, while there are calls; before votes, whose answers take
    several.
    """
    rungs = [rung.priced(setup.task) for rung in rungs]
    thinks = bool(room_to_think(dspy.settings.lm))
    unfit = {rung.name: rung.why_not(setup.task, thinks) for rung in rungs}
    climbing = _Climbing(setup, [rung for rung in rungs if not unfit[rung.name]], watch)
    queue = list(rungs)
    while True:
        while queue and (why := unfit.get(queue[0].name)):
            unfitted = queue.pop(0)
            climbing.add(Attempt(unfitted.name, unfitted.family, skipped=why, unfit=True))
        if all(rung.family == "votes" for rung in queue):
            queue = [*climbing.larger(rungs, queue), *queue]
        fit = [rung for rung in queue if not unfit.get(rung.name)]
        decision = climbing.decided(fit)
        if decision.verdict != "improving":
            break
        rung = climbing.following(fit)
        queue.remove(rung)
        watch.started(rung.name)
        climbing.add(climbing.tried(rung, [other for other in fit if other is not rung]))
    close = contenders(climbing.history.tried, climbing.history.val)
    return Climb(
        tuple(climbing.attempts),
        tuple(climbing.scored[n] for n in close),
        decision,
        climbing.history,
        climbing.left,
    )


def on_top(
    setup: Setup, rungs: Sequence[Rung], start: Attempt, watch: Observer
) -> tuple[Attempt, ...]:
    """Each of the rungs once, on a program that is there, raced and promoted as in a climb. No
    verdict: the target does not end it. start: that program; the task LM in DSPy's context is its
    LM.

    Calls are kept for the test rows of that program and the best one, and for what comes after.
    """
    found, incumbent = list[Attempt](), start
    for n, rung in enumerate(rungs, 1):
        left, after = setup.left(start, incumbent), rungs[n:]
        watch.started(f"{rung.name} on the tuned LM")
        with setup.keeping(start, incumbent):
            learn = setup.splits.train
            attempt = tried_rung(setup, rung, incumbent, learn, left, after, watch)
        found.append(attempt)
        incumbent = attempt if attempt.promoted else incumbent
    return tuple(found)


class _Climbing:
    """A climb under way: the attempts so far, and the rows they are judged on.

    rungs: those that will be tried. learn: train rows that they may use; the others judge, beyond
    val, until the verdict is in.
    """

    def __init__(self, setup: Setup, rungs: Sequence[Rung], watch: Observer) -> None:
        self.setup, self.watch = setup, watch
        self.learn, spare = lent(setup.task, setup.splits)
        self.rows = (*setup.splits.val, *spare)
        self.val = len(setup.splits.val)
        self.attempts = [baseline(setup, watch)]
        self.incumbent = self.attempts[0]
        val, test = (setup.repeats * len(r) for r in (setup.splits.val, setup.splits.test))
        left, each = self._left([on_record(self.incumbent, setup.task)]), least_calls(setup.task)
        rows = rows_that_compare(rungs, len(self.learn), left, val, test, each)
        chat = self.incumbent.calls if calls_for_one(self.incumbent) < OFTEN else 0.0
        self.setup = replace(setup, search=rows, chat_calls=chat)

    @property
    def scored(self) -> list[Attempt]:
        return [a for a in self.attempts if a.evaluation]

    def add(self, attempt: Attempt) -> None:
        if attempt.rung.endswith(AGAIN) and self._known(attempt):
            same = "a larger search found a program that was there already"
            attempt = Attempt(
                attempt.rung,
                attempt.family,
                skipped=same,
                usage=attempt.usage,
                seconds=attempt.seconds,
            )
        self.incumbent = attempt if attempt.promoted else self.incumbent
        self.attempts.append(attempt)
        self.watch.finished(attempt)

    def larger(self, rungs: Sequence[Rung], after: Sequence[Rung]) -> list[Rung]:
        """The first of the rungs that had too few calls for a whole try, each once, with at least
        half as many again as it had. after: those to come, whose calls it leaves.
        """
        names = {a.rung for a in self.attempts}
        cut = {a.rung: a.grown for a in self.attempts if a.starved and a.grown}
        left = self._left([on_record(a, self.setup.task) for a in self.scored])
        left -= sum(self._demand(rung).useful for rung in after)
        again = (
            replace(rung, name=rung.name + AGAIN, grown=cut[rung.name])
            for rung in rungs
            if rung.name in cut and rung.name + AGAIN not in names
        )
        return [rung for rung in again if self._demand(rung).useful <= left][:1]

    def decided(self, queue: Sequence[Rung]) -> Decision:
        """The verdict as it stands, after more rows where it hangs on them."""
        self.told = False  # that more rows are asked
        self.history = self._history(queue)
        self.history = still_reached(self.history, len(self.rows), self._ask)
        decision = decide(self.history)
        if decision.verdict not in ("reached", "improving"):
            self.history = compared(self.history, len(self.rows), self._ask)
            decision = decide(self.history)
        self.watch.decided(self.history)
        return decision

    def _history(self, queue: Sequence[Rung]) -> History:
        setup = self.setup
        tried = tuple(on_record(a, setup.task) for a in self.scored)
        # one that came again has been tried, whatever came of it
        again = {a.rung for a in self.attempts if not a.starved}
        starved = [
            a
            for a in self.attempts
            if a.starved and not a.rung.endswith(AGAIN) and a.rung + AGAIN not in again
        ]
        self.left = (*(a.rung for a in starved), *(rung.name for rung in queue))
        whole = [a for a in self.scored[1:] if not a.starved] or self.scored[:1]
        return History(
            tried,
            setup.target,
            self.val,
            len(self.left),
            budget_left=bool(queue) and self._left(tried) > 0,
            rung_calls=sum(a.usage.different for a in whole) // len(whole),
            rivals=setup.rivals,
            constant=setup.constant,
            varied=setup.varied,
            rows=tuple(row_hash(setup.task, e) for e in setup.splits.val),
            judge=setup.task.confusion,
        )

    def _left(self, tried: Sequence[Tried]) -> int:
        """LM calls for the rungs to come: some are kept for the judging rows beyond val."""
        best = self.scored[contenders(tried, self.val)[0]]
        left = self.setup.left(self.attempts[0], best)
        more = FINALISTS * (len(self.rows) - self.val) * best.calls * self.setup.repeats
        return left - int(min(more, KEPT * max(0, left)))

    def _ask(
        self, number: int, start: int, end: int
    ) -> tuple[tuple[float | None, ...], int] | None:
        """As Ask has it."""
        attempt, setup = self.scored[number], self.setup
        need = math.ceil(attempt.calls * (end - start) * setup.repeats)
        if setup.left(self.attempts[0], attempt) < need:
            return None
        assert attempt.program
        before, began = setup.meter.usage(), time.perf_counter()
        if not self.told:
            self.watch.started("more rows for the best programs")
            self.told = True
        try:
            found = evaluate(attempt.program, self.rows[start:end], setup.asking(self.watch))
        except (BudgetExhausted, WorkbenchError):
            return None
        for other in self.scored:
            beyond = other.beyond.scores[start - self.val : end - self.val]
            found = found.held_to(beyond)
        longer = replace(
            attempt,
            beyond=Evaluation(attempt.beyond.outcomes + found.outcomes, found.judge),
            usage=attempt.usage + (setup.meter.usage() - before),
            seconds=attempt.seconds + time.perf_counter() - began,
        )
        self.attempts = [longer if a is attempt else a for a in self.attempts]
        self.incumbent = longer if self.incumbent is attempt else self.incumbent
        return found.scores, found.unread

    def following(self, rungs: Sequence[Rung]) -> Rung:
        """The first of the rungs for which what is useful to it is left; where there is none, the
        first one that can do something with what there is.
        """
        left = self._left(self.history.tried)
        whole = (r for r in rungs if self._demand(r).useful <= left)
        return next(whole, None) or next(
            (r for r in rungs if self._demand(r.small()).useful <= left), rungs[0]
        )

    def tried(self, rung: Rung, after: Sequence[Rung]) -> Attempt:
        """One that had less than is useful to it counts as left to be tried."""
        left = self._left(self.history.tried)
        small = self._demand(rung).useful > left
        given = self.incumbent, self.learn, left, after
        with self.setup.keeping(self.attempts[0], self.incumbent):
            found = tried_rung(self.setup, rung.small() if small else rung, *given, self.watch)
        return replace(found, starved=found.starved or (small and not found.skipped))

    def _demand(self, rung: Rung) -> Demand:
        return demand(self.setup, rung, self.incumbent, self.learn)

    def _known(self, attempt: Attempt) -> bool:
        """Whether an earlier attempt made the same program."""
        made = [to_text(a.program) for a in self.scored if a.program]
        return attempt.program is not None and to_text(attempt.program) in made

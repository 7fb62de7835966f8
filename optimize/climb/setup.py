"""What a climb runs on, and what of it is kept for the test rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from operator import add

from optimize.climb.observer import Attempt, Observer
from optimize.climb.rungs.base import SEARCH
from optimize.data.rows import Splits
from optimize.lm.embedder import Embedder
from optimize.lm.limits import Spent
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from optimize.scoring.evaluate import Asking
from optimize.task import Task

# of minutes kept back: an answer's seconds hang on what else the machine or provider does just then
CLOCK = 1.5


@dataclass(frozen=True)
class Setup:
    """What a climb runs on. after: LM calls that must be left when it ends, beside those for the
    test rows.

    repeats: how often each val and test row is asked. search: train rows on which rungs compare
    candidates. rivals, constant, varied: as History has them.
    embedder: as Context has it. chat_calls: of an example in DSPy's chat format, which levers may
    go back to; 0 where the LM does not keep to it, and none does.
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
    search: int = SEARCH
    rivals: tuple[tuple[float | None, ...], ...] = ()
    constant: float = -1.0
    varied: bool = True
    embedder: Embedder | None = None
    chat_calls: float = 1.0

    def asking(self, watch: Observer) -> Asking:
        return Asking(self.task, self.threads, self.repeats, watch.scored)

    def left(self, baseline: Attempt, best: Attempt) -> int:
        """LM calls the climb may still make: baseline and best program are yet to answer the test
        rows.
        """
        kept = self.kept_calls(baseline, best)
        return self.meter.remaining(kept, self.kept(baseline, best)()) - self.after

    def keeping(self, baseline: Attempt, best: Attempt) -> AbstractContextManager[None]:
        """A stretch of work that leaves the test rows, and what comes after, all that they take."""
        calls = self.kept_calls(baseline, best) + self.after
        return self.meter.keeping(self.kept(baseline, best, self.after), calls)

    def kept_calls(self, baseline: Attempt, best: Attempt) -> int:
        """LM calls that the test rows will take of these two, or of what the next lever makes of
        the best one.
        """
        rows = self.repeats * len(self.splits.test)
        return _upto(rows, baseline.calls) + _upto(rows, max(best.calls, self.chat_calls))

    def kept(self, baseline: Attempt, best: Attempt, after: int = 0) -> Callable[[], Spent]:
        """What the test rows will take of these two, if they take what rows of val have taken, and
        of the clock half as much again; with so many calls after them, at what calls have taken.

        To be asked at every call: where the cache knew all answers, an average call stands in for
        them, and that is not known before the first.
        """
        rows = self.repeats * len(self.splits.test)
        taking = [(attempt.calls, self._takes(attempt)) for attempt in (baseline, best)]

        def told() -> Spent:
            average = self.meter.average()
            each = [taken or tuple(calls * n for n in average) for calls, taken in taking]
            tokens, usd, minutes = (rows * sum(n) for n in zip(*each, strict=True))
            kept = tokens, usd, CLOCK * minutes
            tokens, usd, minutes = (a + after * b for a, b in zip(kept, average, strict=True))
            return tokens, usd, minutes

        return told

    def _takes(self, attempt: Attempt) -> Spent | None:
        """What one answer of the attempt's program takes; None where all were known."""
        outcomes = attempt.evaluation.outcomes if attempt.evaluation else ()
        anew = [o for o in outcomes if o.asked_anew]
        answers = sum(o.asked_anew for o in anew)
        if not answers:
            return None
        used = reduce(add, (o.usage + o.scoring for o in anew))
        seconds = sum(o.seconds * o.asked_anew for o in anew) / self.threads
        tokens = used.tokens_in + used.tokens_out
        return tokens / answers, used.cost / answers, seconds / answers / 60


def _upto(rows: int, calls: float) -> int:
    """LM calls that so many rows take, by what other rows took on average: where some of these were
    asked again, two standard deviations more.
    """
    again = calls % 1
    return math.ceil(rows * calls + 2 * math.sqrt(rows * again * (1 - again)))

"""What came of asking a program: example by example, and together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from statistics import fmean, variance
from typing import Any

from optimize.lm.usage import Usage
from optimize.stats.intervals import Interval, known, mean_interval
from optimize.stats.judge import Confusion, corrected

UNPARSABLE = "unparsable answer"
TOO_LONG = "with this row the prompt is longer than the LM reads"


@dataclass(frozen=True)
class Outcome:
    """One example's result. score None: the call failed, so nothing is known; an unparsable answer
    scores 0.

    usage: the LM calls it took, of all repeats together. scoring: those that its metric made, or an
    LM judge. asked_anew: how many answers' calls were sent, over all repeats: of an answer that the
    cache knew in part, such as the first of its votes, the share that it did not know. seconds:
    until the answer was there, the mean over these. repeats: its score each time it was
    asked, where it was asked more than once; score is their mean and answer the first one's.
    confidence: the probability the LM gave the answer, from its tokens' log-probabilities where
    they were asked for (optimize.lm.telling), else the share of repeats that answered the same;
    None where neither is known. said: what LMs answered, call by call, word for word. cut: the
    tokens at which the last of these was cut, since it may take no more; 0: it was not. capped: a
    cap on the run forbade to ask. unread: there is no answer since the LM does not read so much.
    again: calls of `usage` that were made since an answer before could not be read.
    """

    score: float | None
    answer: dict[str, Any]
    feedback: str = ""
    error: str = ""
    usage: Usage = Usage()  # noqa: RUF009 (frozen)
    scoring: Usage = Usage()  # noqa: RUF009
    asked_anew: float = 0
    seconds: float = 0.0
    repeats: tuple[float, ...] = ()
    confidence: float | None = None
    said: tuple[str, ...] = ()
    cut: int = 0
    capped: bool = False
    unread: bool = False
    again: int = 0

    @property
    def asked(self) -> int:
        """LM calls asked for, whoever answered them: for the answer and for its score."""
        return self.usage.asked + self.scoring.asked


@dataclass(frozen=True)
class Evaluation:
    """Outcomes in devset order: of all examples, or of the first ones when a race was stopped.

    judge: how an LM judge that scored them errs; None: a metric did.
    """

    outcomes: tuple[Outcome, ...]
    judge: Confusion | None = None

    @property
    def scores(self) -> tuple[float | None, ...]:
        return tuple(o.score for o in self.outcomes)

    @property
    def known(self) -> list[float]:
        """The scores there are."""
        return known(self.scores)

    @property
    def interval(self) -> Interval:
        """Of the scores as they were given, by which programs are ranked."""
        return mean_interval(self.known)

    @property
    def mean(self) -> float:
        """The same without its ends; 0 where no call has been answered yet."""
        return fmean(self.known or [0.0])

    @property
    def score(self) -> Interval:
        """The same, corrected for the judge's errors: what people would say."""
        return corrected(self.interval, self.judge)

    @property
    def missing(self) -> int:
        return sum(s is None for s in self.scores)

    @property
    def unread(self) -> int:
        """Examples that the LM does not read, whatever it is prompted with: they are in no
        comparison.
        """
        return sum(o.unread for o in self.outcomes)

    @property
    def coverage(self) -> float:
        """The share with a score of the examples that the LM can read."""
        return len(self.known) / ((len(self.outcomes) - self.unread) or 1)

    @property
    def answered(self) -> float:
        """The same of those that no cap forbade to ask. Those that calls failed on are no random
        ones: what is said of the rest may not hold of all.
        """
        asked = sum(not (o.capped or o.unread) for o in self.outcomes)
        return len(self.known) / (asked or 1)

    def held_to(self, scores: Sequence[float | None]) -> Evaluation:
        """The same, with 0 points for each row that does not fit the LM beside this program's
        prompt, and was answered with another one: that row is lost by the prompt.

        scores: the other program's, row by row; of the first rows, or beyond these.
        """
        held = [
            replace(o, score=0.0, error=TOO_LONG, unread=False)
            if o.unread and other is not None
            else o
            for o, other in zip(self.outcomes, scores, strict=False)
        ]
        return replace(self, outcomes=(*held, *self.outcomes[len(held) :]))

    @property
    def noise(self) -> float | None:
        """The part of the mean's standard error that the LM's own noise makes; None where no
        example was asked twice.

        The mean variance between repeats of an example, divided by all answers given: one-way
        analysis of variance. The interval holds both parts already, since each example's score is a
        mean of noisy ones.
        """
        within = [variance(o.repeats) / len(o.repeats) for o in self.outcomes if len(o.repeats) > 1]
        return math.sqrt(math.fsum(within)) / len(within) if within else None


def alike(found: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations of several programs on the same rows, each held to all the others."""
    return [reduce(Evaluation.held_to, (e.scores for e in found), one) for one in found]

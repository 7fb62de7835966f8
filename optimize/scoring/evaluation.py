"""What came of asking a program: example by example, and together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from optimize.lm.usage import Usage
from optimize.stats.intervals import Interval, known, mean_interval
from optimize.stats.judge import Confusion, corrected

UNPARSABLE = "unparsable answer"


@dataclass(frozen=True)
class Outcome:
    """One example's result. score None: the call failed, so nothing is known; an unparsable answer
    scores 0.

    usage: the LM calls it took, of all repeats together. scoring: those that its metric made, or an
    LM judge. asked_anew: how many of the repeats sent a call, not all answered from the cache.
    seconds: until the answer was there, the mean over these. repeats: its score each time it was
    asked, where it was asked more than once; score is their mean and answer the first one's.
    confidence: the probability the LM gave the answer, from its tokens' log-probabilities where
    they were asked for (optimize.lm.telling), else the share of repeats that answered the same;
    None where neither is known. said: what LMs answered, call by call, word for word. cut: the
    tokens at which the last of these was cut, since it may take no more; 0: it was not. capped: a
    cap on the run forbade to ask.
    """

    score: float | None
    answer: dict[str, Any]
    feedback: str = ""
    error: str = ""
    usage: Usage = Usage()  # noqa: RUF009 (frozen)
    scoring: Usage = Usage()  # noqa: RUF009
    asked_anew: int = 0
    seconds: float = 0.0
    repeats: tuple[float, ...] = ()
    confidence: float | None = None
    said: tuple[str, ...] = ()
    cut: int = 0
    capped: bool = False

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
    def coverage(self) -> float:
        """The share of examples with a score."""
        return 1 - self.missing / len(self.outcomes)

    @property
    def answered(self) -> float:
        """The share with a score of the examples that no cap forbade to ask. Those that calls
        failed on are no random ones: what is said of the rest may not hold of all.
        """
        asked = [o for o in self.outcomes if not o.capped]
        return sum(o.score is not None for o in asked) / len(asked) if asked else 0.0

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

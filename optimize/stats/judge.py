"""Scores that a fallible judge gave, corrected for its errors against people. Numbers in, numbers
out.

All of it rests on one assumption: the judge errs on the answers at hand as often, and in the same
way, as on those that people have judged (sensitivity and specificity carry over). How often people
would pass the answers need not be the same there. docs/judge.md says what that means in practice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from optimize.stats.intervals import LEVEL, Interval, above, wilson, z
from optimize.stats.two_samples import mean_change

Difference = TypeVar("Difference", bound=Interval)
GRID = 20  # quantiles of sensitivity, and of specificity, over which a probability is averaged


@dataclass(frozen=True)
class Confusion:
    """A judge's verdicts on answers that people have judged, counted. People are right.

    tp: both pass it; fn: people pass it, the judge does not; fp: the judge alone passes it; tn:
    neither does. The properties want an answer of each kind.
    """

    tp: int
    fn: int
    fp: int
    tn: int

    @property
    def n(self) -> int:
        return self.tp + self.fn + self.fp + self.tn

    @property
    def sensitivity(self) -> Interval:
        """Of the answers that people pass, the share that the judge passes."""
        return wilson(self.tp / (self.tp + self.fn), self.tp + self.fn)

    @property
    def specificity(self) -> Interval:
        """Of the answers that people fail, the share that the judge fails."""
        return wilson(self.tn / (self.tn + self.fp), self.tn + self.fp)

    @property
    def agreement(self) -> Interval:
        """The share of equal verdicts."""
        return wilson((self.tp + self.tn) / self.n, self.n)

    @property
    def kappa(self) -> Interval:
        """Cohen's kappa: agreement beyond chance. Interval: Wilson's of the agreement, with that by
        chance held fixed, as in Cohen (1960); it does not claim certainty where all agree.
        """
        people, judge, n = self.tp + self.fn, self.tp + self.fp, self.n
        chance = (people * judge + (n - people) * (n - judge)) / n**2
        found = self.agreement
        ends = [(p - chance) / (1 - chance) for p in (found.mean, found.low, found.high)]
        return Interval(ends[0], ends[1], ends[2], n)

    @property
    def youden(self) -> Interval:
        """Sensitivity + specificity − 1 (Youden 1950): 1 perfect, 0 a coin. Newcombe's interval."""
        passes = [0.0] * self.tn + [1.0] * self.fp, [0.0] * self.fn + [1.0] * self.tp
        return replace(mean_change(*passes), n=self.n)


def of_people(difference: float, judge: Confusion | None) -> float:
    """A difference of scores by people, from one of a judge's, where one gave them."""
    return min(1.0, difference / judge.youden.mean) if judge else difference


def corrected(raw: Interval, judge: Confusion | None) -> Interval:
    """The score that people would give, from the share that the judge passes.

    Estimate: Rogan & Gladen (1978), cut to 0…1. Interval: Lang & Reiczigel (2014), which counts one
    more right and one more wrong verdict on either side, and holds both the judged sample's error
    and those of sensitivity and specificity. In place of their Agresti-Coull terms it takes the
    middle and the standard error of `raw`, so that repeated, graded scores go as well. No judge:
    `raw` itself.
    """
    if judge is None:
        return raw
    youden = judge.youden.mean
    mean = min(1.0, max(0.0, (raw.mean - (1 - judge.specificity.mean)) / youden))
    (_, var_se), (_, var_sp) = (_adjusted(*side) for side in _sides(judge))
    middle = _middle(raw, judge)
    shift = 2 * z(LEVEL) ** 2 * (middle * var_se - (1 - middle) * var_sp)
    half = z(LEVEL) * math.hypot(*errors(raw, judge))
    low, high = (min(1.0, max(0.0, middle + shift + side)) for side in (-half, half))
    return Interval(mean, min(low, mean), max(high, mean), raw.n)


def errors(raw: Interval, judge: Confusion | None) -> tuple[float, float]:
    """The two parts of a corrected score's standard error: the rows', which more judged answers
    lessen, and the judge's, which only more human verdicts do. Both as they are before the interval
    is cut to 0…1: near its ends the cut one is narrow, however little is known.
    """
    if judge is None:
        return raw.error, 0.0
    (se, var_se), (sp, var_sp) = (_adjusted(*side) for side in _sides(judge))
    middle, youden = _middle(raw, judge), se + sp - 1
    of_judge = math.sqrt(middle**2 * var_se + (1 - middle) ** 2 * var_sp)
    return raw.error / youden, of_judge / youden


def _middle(raw: Interval, judge: Confusion) -> float:
    """The middle of the corrected interval, but for its shift; may lie beyond 0…1."""
    se, sp = (_adjusted(*side)[0] for side in _sides(judge))
    return ((raw.low + raw.high) / 2 + sp - 1) / (se + sp - 1)


def _sides(judge: Confusion) -> tuple[tuple[int, int], tuple[int, int]]:
    """Right and wrong verdicts on answers that people pass, and on those that they fail."""
    return (judge.tp, judge.fn), (judge.tn, judge.fp)


def _adjusted(right: int, wrong: int) -> tuple[float, float]:
    """Share and its variance with one more verdict each way (Agresti & Caffo 2000)."""
    share, n = (right + 1) / (right + wrong + 2), right + wrong + 2
    return share, share * (1 - share) / n


def corrected_gain(raw: Difference, judge: Confusion | None) -> Difference:
    """The difference of two programs that people would see, if the judge errs equally on both: that
    shrinks every difference by Youden's index, so this divides by it.

    Interval: that of a ratio of two independent estimates (MOVER-R, Donner & Zou 2012), wider for
    what is not known of the index. It excludes 0 exactly where the raw one does: equal errors make
    a difference smaller, they make none. better, worse and p stay the judge's.
    """
    if judge is None:
        return raw
    j, d = judge.youden, raw.mean

    def end(limit: float, index: float, sign: int) -> float:
        scale = max(1e-9, index * (2 * j.mean - index))
        inside = (d * j.mean) ** 2 - limit * (2 * d - limit) * scale
        return (d * j.mean + sign * math.sqrt(max(0.0, inside))) / scale

    # which end of the index makes a difference extreme hangs on the difference's sign
    low = end(raw.low, j.high if raw.low > 0 else j.low, -1)
    high = end(raw.high, j.low if raw.high > 0 else j.high, 1)
    mean = max(-1.0, min(1.0, d / j.mean))
    return replace(raw, mean=mean, low=max(-1.0, low), high=min(1.0, high))


def chance_at_least(
    target: float, scores: Sequence[float], judge: Confusion | None, shift: float = 0.0
) -> float:
    """Probability that the true mean is `target` or more; of what people would say, where the
    scores are a judge's.

    A true score of t makes the judge pass t·sensitivity + (1−t)·(1−specificity) of the answers. The
    probability that it passes so many, averaged over the Beta posteriors of sensitivity and
    specificity under Jeffreys' prior. shift: added to the judge's mean.
    """
    if judge is None:
        return float(above(target, scores, shift))
    sensitivity, specificity = _posterior(judge)
    asked = target * sensitivity + (1 - target) * (1 - specificity)
    return float(above(asked, scores, shift).mean())


@cache
def _posterior(judge: Confusion) -> tuple[Any, Any]:
    """(GRID, 1) and (1, GRID): equally likely values of sensitivity and specificity."""
    import numpy as np
    from scipy.stats import beta

    at = (np.arange(GRID) + 0.5) / GRID
    drawn = [beta.ppf(at, right + 0.5, wrong + 0.5) for right, wrong in _sides(judge)]
    return drawn[0][:, None], drawn[1][None, :]

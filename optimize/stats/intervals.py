"""Intervals and paired gains: numbers in, numbers out. Knows no LM, no rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95  # two-sided confidence of every interval
POWER = 0.8  # of the smallest gain that a set can see
DRAWS = 4000


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, and the number of examples it stands on."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def error(self) -> float:
        """The standard error that the interval's width stands for."""
        return (self.high - self.low) / (2 * z(LEVEL))


def mean_interval(scores: Sequence[float]) -> Interval:
    """The mean of scores in [0, 1].

    Right-or-wrong scores: Wilson's interval. Graded ones: the BCa bootstrap (Efron 1987), or
    Wilson's, which is wider, where all scores are equal and a bootstrap would claim certainty.
    Raises ValueError without scores.
    """
    n = len(scores)
    if n == 0:
        raise ValueError("An interval needs at least one score.")
    if set(scores) <= {0.0, 1.0} or _equal(scores):
        return wilson(math.fsum(scores) / n, n)
    return _bootstrap(scores)


def wilson(mean: float, n: int) -> Interval:
    """Wilson's interval (Wilson 1927) of a mean of n scores in [0, 1]: exact enough for 0/1 scores,
    wide for graded ones.
    """
    z2 = z(LEVEL) ** 2
    middle, half = mean + z2 / (2 * n), math.sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n * n)))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return Interval(mean, max(0.0, min(low, mean)), min(1.0, max(high, mean)), n)


@cache
def z(level: float) -> float:
    """The two-sided normal quantile of a level: 1.96 for 0.95."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))


def differences(before: Sequence[float | None], after: Sequence[float | None]) -> list[float]:
    """After minus before where both are known; the shorter sequence ends the pairing."""
    return [a - b for b, a in zip(before, after, strict=False) if a is not None and b is not None]


@dataclass(frozen=True)
class Gain(Interval):
    """A mean paired difference with its interval; how many examples got better and worse; and
    McNemar's exact p: how likely so uneven a change is if neither side is better (McNemar 1947). p
    is None for graded scores, where only the interval speaks.
    """

    better: int = 0
    worse: int = 0
    p: float | None = None


def paired_gain(
    before: Sequence[float | None], after: Sequence[float | None], level: float = LEVEL
) -> Gain:
    """How much better `after` is than `before` on the same examples; pairs with a missing score are
    left out.

    Right-or-wrong scores: the adjusted Wald interval of Bonett & Price (2012), which counts one
    more pair won and one more lost. Graded ones: the BCa bootstrap of the differences. The shorter
    sequence ends the pairing, as when a race was stopped early. Raises ValueError without a pair.
    """
    found = differences(before, after)
    n = len(found)
    if n == 0:
        raise ValueError("A paired gain needs at least one example scored on both sides.")
    mean, better, worse = math.fsum(found) / n, sum(d > 0 for d in found), sum(d < 0 for d in found)
    right_or_wrong = set(found) <= {-1.0, 0.0, 1.0}
    if not _equal(found) and not right_or_wrong:
        own = _bootstrap(found, level)
        return Gain(own.mean, own.low, own.high, n, better, worse)
    adjusted = math.fsum(found) / (n + 2)
    square = (math.fsum(d * d for d in found) + 2) / (n + 2)
    half = z(level) * math.sqrt((square - adjusted**2) / (n + 2))
    p = _mcnemar(better, worse) if right_or_wrong else None
    return Gain(mean, max(-1.0, adjusted - half), min(1.0, adjusted + half), n, better, worse, p)


@cache
def _mcnemar(better: int, worse: int) -> float:
    """The exact test: of the examples that changed, each way is as likely as the other."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def smallest_gain(n: int, variance: float) -> float:
    """The smallest true gain that n pairs show as significant (two-sided, LEVEL) with probability
    POWER.

    variance: of one pair's difference; for 0/1 scores the share of examples on which two programs
    differ. Solves gain² n = (z + z')² (variance - gain²), the normal approximation of Connor
    (1987). 1.0 where nothing less is seen.
    """
    c = (z(LEVEL) + z(2 * POWER - 1)) ** 2
    return min(1.0, math.sqrt(c * variance / (n + c)))


def rows_to_see(gain: float, variance: float) -> int:
    """How many pairs show a true gain of this size with probability POWER: smallest_gain the other
    way round.
    """
    c = (z(LEVEL) + z(2 * POWER - 1)) ** 2
    return max(1, math.ceil(c * max(0.0, variance - gain**2) / gain**2))


def _equal(values: Sequence[float]) -> bool:
    """Whether all values are the same but for rounding, so that a bootstrap has nothing to
    resample.
    """
    return max(values) - min(values) < 1e-9


def _bootstrap(values: Sequence[float], level: float = LEVEL) -> Interval:
    import numpy as np
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=level,
        n_resamples=DRAWS,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(
        math.fsum(values) / len(values), float(found.low), float(found.high), len(values)
    )

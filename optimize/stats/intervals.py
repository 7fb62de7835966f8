"""Intervals and paired gains: numbers in, numbers out. Knows no LM, no rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

LEVEL = 0.95  # two-sided confidence of every interval
POWER = 0.8  # of the smallest gain that a set can see


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


def mean_interval(scores: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean of scores in [0, 1].

    Right-or-wrong scores: Wilson's interval. Graded ones: Student's t (1908) with one more score of
    0 and one of 1 (as Agresti & Coull 1998 add for right-or-wrong ones), since scores that are all
    about as high say little of how low one may be. Raises ValueError without scores.
    """
    n = len(scores)
    if n == 0:
        raise ValueError("An interval needs at least one score.")
    mean = math.fsum(scores) / n
    if set(scores) <= {0.0, 1.0}:
        return wilson(mean, n, level)
    middle, error = _graded(scores)
    half = student(n, level) * error
    return Interval(mean, max(0.0, min(middle - half, mean)), min(1.0, max(middle + half, mean)), n)


def wilson(mean: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson's interval (Wilson 1927) of a mean of n scores in [0, 1]: exact enough for 0/1 scores,
    wide for graded ones.
    """
    z2 = z(level) ** 2
    middle, half = mean + z2 / (2 * n), math.sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n * n)))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return Interval(mean, max(0.0, min(low, mean)), min(1.0, max(high, mean)), n)


def above(targets: Any, scores: Sequence[float], shift: float = 0.0) -> Any:
    """Probability that the true mean of which these scores in [0, 1] are a sample is `targets` or
    more, for one or an array of them.

    Right-or-wrong scores: the Beta posterior under Jeffreys' prior (Brown, Cai & DasGupta 2001).
    Graded ones: Student's t, which is the posterior under the prior 1/sd, with the two more scores
    of `mean_interval`. shift: added to the mean, as where it is known to be too high. Raises
    ValueError without scores.
    """
    from scipy.stats import beta, t

    n = len(scores)
    if n == 0:
        raise ValueError("A probability needs at least one score.")
    if set(scores) <= {0.0, 1.0}:
        mean = min(1.0, max(0.0, math.fsum(scores) / n + shift))
        return beta.sf(targets, n * mean + 0.5, n * (1 - mean) + 0.5)
    middle, error = _graded(scores)
    return t.sf((targets - min(1.0, max(0.0, middle + shift))) / error, max(1, n - 1))


def _graded(scores: Sequence[float]) -> tuple[float, float]:
    """The mean of scores in [0, 1] with one more of 0 and one of 1, and its standard error."""
    more = [*scores, 0.0, 1.0]
    return fmean(more), stdev(more) / math.sqrt(len(more))


@cache
def student(n: int, level: float) -> float:
    """The two-sided quantile of Student's t for n values: 2.02 for 40 and 0.95."""
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, max(1, n - 1)))


@cache
def z(level: float) -> float:
    """The two-sided normal quantile of a level: 1.96 for 0.95."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))


def known(scores: Sequence[float | None]) -> list[float]:
    """The scores there are: those of failed calls are missing."""
    return [s for s in scores if s is not None]


def commonest(values: Iterable[str]) -> float:
    """The share of the commonest value; 0 without any."""
    counts = Counter(values)
    return max(counts.values()) / counts.total() if counts else 0.0


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

    The adjusted Wald interval of Bonett & Price (2012), which counts one more pair won and one more
    lost; of graded scores too, with Student's quantile, since pairs that are all about equal say
    little of how much one may lose. The shorter sequence ends the pairing, as when a race was
    stopped early. Raises ValueError without a pair.
    """
    found = differences(before, after)
    n = len(found)
    if n == 0:
        raise ValueError("A paired gain needs at least one example scored on both sides.")
    mean, better, worse = math.fsum(found) / n, sum(d > 0 for d in found), sum(d < 0 for d in found)
    middle = math.fsum(found) / (n + 2)
    square = (math.fsum(d * d for d in found) + 2) / (n + 2)
    right_or_wrong = set(found) <= {-1.0, 0.0, 1.0}
    quantile = z(level) if right_or_wrong else student(n, level)
    half = quantile * math.sqrt((square - middle**2) / (n + 2))
    p = _mcnemar(better, worse) if right_or_wrong else None
    return Gain(mean, max(-1.0, middle - half), min(1.0, middle + half), n, better, worse, p)


@cache
def _mcnemar(better: int, worse: int) -> float:
    """The exact test: of the examples that changed, each way is as likely as the other."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def power(n: int, gain: float, differ: float) -> float:
    """How often n pairs show a true gain of right-or-wrong scores as significant (paired_gain's
    interval above 0, at LEVEL).

    differ: share of the examples on which two programs differ, at least `gain`. Exact: the number
    of pairs that differ is binomial, and so is the number won among them.
    """
    import numpy as np
    from scipy.stats import binom

    differ = max(differ, gain)
    differing = np.arange(n + 1)
    n_adjusted, z2 = n + 2, z(LEVEL) ** 2
    # solved for the net number of pairs won from which the interval's lower end is above 0
    net = n_adjusted * np.sqrt(z2 * (differing + 2) / n_adjusted / (n_adjusted + z2))
    won = np.floor((differing + net) / 2) + 1
    shown = binom.sf(won - 1, differing, (1 + gain / differ) / 2)
    return float(binom.pmf(differing, n, differ) @ shown)


def smallest_gain(n: int, differ: float) -> float:
    """The smallest true gain that n pairs show as significant with probability POWER; 1.0 where
    nothing less is seen.

    differ: share of examples on which two programs differ; for graded scores the variance of one
    pair's difference, which is that of right-or-wrong ones that differ as often.
    """
    low, high = 0.0, 1.0
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, middle, differ) >= POWER else (middle, high)
    return high


def rows_to_see(gain: float, differ: float) -> int:
    """How many pairs show a true gain of this size with probability POWER: smallest_gain the other
    way round.
    """
    n = 2
    while power(n, gain, differ) < POWER:
        n = max(n + 1, math.ceil(1.02 * n))
    return n

"""Intervals and paired gains: numbers in, numbers out. Knows no LM, no rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95  # two-sided confidence of every interval
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
        from scipy.stats import norm

        return (self.high - self.low) / (2 * float(norm.ppf(0.5 + LEVEL / 2)))


def mean_interval(scores: Sequence[float]) -> Interval:
    """The mean of scores in [0, 1].

    Right-or-wrong scores: Wilson's interval (Wilson 1927). Graded ones: the BCa bootstrap (Efron 1987), or Wilson's,
    which is wider, where all scores are equal and a bootstrap would claim certainty. Raises ValueError without scores.
    """
    from scipy.stats import binomtest, norm

    n = len(scores)
    if n == 0:
        raise ValueError("An interval needs at least one score.")
    mean = math.fsum(scores) / n
    if set(scores) <= {0.0, 1.0}:
        found = binomtest(round(math.fsum(scores)), n).proportion_ci(LEVEL, method="wilson")
        return Interval(mean, float(found.low), float(found.high), n)
    if _equal(scores):
        z2 = float(norm.ppf(0.5 + LEVEL / 2)) ** 2
        middle, half = mean + z2 / (2 * n), math.sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n * n)))
        return Interval(mean, (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n), n)
    return _bootstrap(scores)


def paired_gain(before: Sequence[float | None], after: Sequence[float | None]) -> Interval:
    """How much better `after` is than `before` on the same examples; pairs with a missing score are left out.

    Right-or-wrong scores: the adjusted Wald interval of Bonett & Price (2012), which counts one more pair won and
    one more lost. Graded ones: the BCa bootstrap of the differences. The shorter sequence ends the pairing, as when
    a race was stopped early. Raises ValueError without a pair.
    """
    from scipy.stats import norm

    differences = [a - b for b, a in zip(before, after, strict=False) if a is not None and b is not None]
    n = len(differences)
    if n == 0:
        raise ValueError("A paired gain needs at least one example scored on both sides.")
    mean = math.fsum(differences) / n
    if not _equal(differences) and not set(differences) <= {-1.0, 0.0, 1.0}:
        return _bootstrap(differences)
    adjusted = math.fsum(differences) / (n + 2)
    square = (math.fsum(d * d for d in differences) + 2) / (n + 2)
    half = float(norm.ppf(0.5 + LEVEL / 2)) * math.sqrt((square - adjusted**2) / (n + 2))
    return Interval(mean, max(-1.0, adjusted - half), min(1.0, adjusted + half), n)


def _equal(values: Sequence[float]) -> bool:
    """Whether all values are the same but for rounding, so that a bootstrap has nothing to resample."""
    return max(values) - min(values) < 1e-9


def _bootstrap(values: Sequence[float]) -> Interval:
    import numpy as np
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.asarray(values),), np.mean, confidence_level=LEVEL, n_resamples=DRAWS, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(math.fsum(values) / len(values), float(found.low), float(found.high), len(values))

"""Are two samples of one kind? Of vectors, of labels, of numbers; numbers in, numbers out.

Every p is that of a permutation test, so it holds for any number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance
from typing import Any

from optimize.stats.intervals import LEVEL, POWER, Interval, mean_interval, z

FOLDS = 5
DRAWS = 999  # permutations
RIDGE = 1.0  # of vectors of length 1
SMALL = 1e-12


@dataclass(frozen=True)
class ToldApart:
    """How well a classifier tells the rows of a second sample from those of a first.

    auc: the chance that it ranks a row of the second above one of the first; 0.5: it cannot tell.
    p: how likely so high an AUC is if both are of one kind. visible: the AUC that so many rows show
    with probability POWER.
    """

    auc: float
    p: float
    visible: float


def told_apart(vectors: Any, second: Sequence[bool], seed: int = 0) -> ToldApart:
    """A classifier two-sample test (Lopez-Paz & Oquab 2017) by ridge regression, cross-validated.

    vectors: (rows, columns), sparse, of length 1 or so. second: which rows are of the second
    sample; either has two rows or more. A ridge classifier's answers are linear in the labels, so
    that one fit a fold serves all permutations, which makes p exact. Labels are permuted within
    folds, so that each fold keeps its share of the second sample.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    y = np.asarray(second, float)
    folds = _folds(y, rng)
    kernel = _centred((vectors @ vectors.T).toarray())
    labels = _permuted(y, folds, rng)
    aucs = []
    for held in folds:
        rest = np.setdiff1d(np.arange(len(y)), held)
        ridge = kernel[np.ix_(rest, rest)] + RIDGE * np.eye(len(rest))
        smoother = np.linalg.solve(ridge, kernel[np.ix_(rest, held)]).T
        found = smoother @ (labels[rest] - labels[rest].mean(axis=0))
        aucs.append(_aucs(found, labels[held]))
    means = np.mean(aucs, axis=0)
    auc, null = float(means[0]), means[1:]
    p = (1 + int((null >= auc - SMALL).sum())) / (1 + DRAWS)
    seen = float(np.quantile(null, LEVEL) + z(2 * POWER - 1) * null.std())
    return ToldApart(auc, p, min(1.0, seen))


def _folds(y: Any, rng: Any) -> list[Any]:
    """Row numbers by fold, each with its share of either sample."""
    import numpy as np

    sides = [rng.permutation(np.flatnonzero(y == side)) for side in (0, 1)]
    count = min(FOLDS, *(len(side) for side in sides))
    return [np.concatenate([side[n::count] for side in sides]) for n in range(count)]


def _permuted(y: Any, folds: Sequence[Any], rng: Any) -> Any:
    """(rows, 1 + DRAWS): the labels as they are, then permuted within each fold."""
    import numpy as np

    labels = np.repeat(y[:, None], 1 + DRAWS, axis=1)
    for held in folds:
        labels[held, 1:] = rng.permuted(labels[held, 1:], axis=0)
    return labels


def _centred(kernel: Any) -> Any:
    return kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()


def _aucs(scores: Any, labels: Any) -> Any:
    """Mann-Whitney's statistic as a share, a column each; ties count half."""
    from scipy.stats import rankdata

    many = labels[:, 0].sum()
    few = len(labels) - many
    ranks = rankdata(scores, axis=0)
    return ((ranks * labels).sum(axis=0) - many * (many + 1) / 2) / (many * few)


def shares_differ(first: Sequence[str], second: Sequence[str], seed: int = 0) -> float:
    """p of the chi-square statistic of two samples' labels, by permutation: small counts are no
    matter. 1 where all labels are the same.
    """
    import numpy as np

    names, codes = np.unique([*first, *second], return_inverse=True)
    total = np.bincount(codes, minlength=len(names))
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(total, len(second), DRAWS)
    expected = total * len(second) / len(codes)
    own = np.bincount(codes[len(first) :], minlength=len(names))
    # of a table with fixed margins, chi-square is a multiple of this
    own_far, far = (((rows - expected) ** 2 / expected).sum(axis=-1) for rows in (own, drawn))
    return (1 + int((far >= own_far - SMALL).sum())) / (1 + DRAWS)


def higher(first: Sequence[float], second: Sequence[float], seed: int = 0) -> float:
    """One-sided p that the mean of the second sample is no higher, by permutation."""
    import numpy as np

    both = np.array([*first, *second])
    drawn = np.random.default_rng(seed).permuted(np.tile(both, (DRAWS, 1)), axis=1)
    own, sums = both[len(first) :].sum(), drawn[:, len(first) :].sum(axis=1)
    return (1 + int((sums >= own - SMALL).sum())) / (1 + DRAWS)


def holm(ps: Sequence[float]) -> list[float]:
    """Each p allowing for all of them (Holm 1979): below 0.05 any of them errs in 5 % of cases."""
    order = sorted(range(len(ps)), key=lambda n: ps[n])
    out, highest = [1.0] * len(ps), 0.0
    for place, n in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[n]))
        out[n] = highest
    return out


def mean_change(before: Sequence[float], after: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean of `after` less that of `before`, two samples of different rows; n: of `after`.

    Right-or-wrong scores: Newcombe's interval (1998, his method 10), from Wilson's two. Graded
    ones: Welch's t (1947). Raises ValueError where either has no score.
    """
    one, other = mean_interval(before, level), mean_interval(after, level)
    mean = other.mean - one.mean
    if set(before) | set(after) <= {0.0, 1.0} or min(len(before), len(after)) < 2:
        low = mean - math.hypot(other.mean - other.low, one.high - one.mean)
        high = mean + math.hypot(other.high - other.mean, one.mean - one.low)
        return Interval(mean, max(-1.0, low), min(1.0, high), other.n)
    half = _welch(before, after, level)
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half), other.n)


def _welch(before: Sequence[float], after: Sequence[float], level: float) -> float:
    from scipy.stats import t

    # one row's worth of a variance, so that equal scores do not claim certainty
    parts = [max(variance(s), 1 / (4 * len(s))) / len(s) for s in (before, after)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(s) - 1) for part, s in zip(parts, (before, after), strict=True)
    )
    return float(t.ppf(0.5 + level / 2, freedom)) * math.sqrt(sum(parts))


def drop_shown(score: float, before: int, after: int) -> float:
    """The smallest drop of the mean of right-or-wrong scores from `score`, known on `before` rows,
    that `after` other rows show with probability POWER. By the normal approximation.
    """
    errors, low, high = z(LEVEL) + z(2 * POWER - 1), 0.0, 1.0
    while high - low > 0.001:
        drop = (low + high) / 2
        sides = (score, before), (max(0.0, score - drop), after)
        # all right, or all wrong, is no more certain than one row allows
        spread = sum(max(mean * (1 - mean), 1 / (4 * n)) / n for mean, n in sides)
        low, high = (low, drop) if drop >= errors * math.sqrt(spread) else (drop, high)
    return high

"""Intervals against published and hand-computed numbers, and against a simulation of their
coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from optimize.stats.intervals import Interval, mean_interval, paired_gain

SETS = 300  # simulated experiments


def bounds(found: Interval) -> tuple[float, float]:
    return found.low, found.high


# Newcombe (1998), table I, method 3, for 81/263, 15/148, 0/20 and 1/29; the last two by hand:
# n/(n+z²) is the lower end of n of n.
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_right_or_wrong_scores_get_wilsons_interval(
    right: int, n: int, low: float, high: float
) -> None:
    found = mean_interval([1.0] * right + [0.0] * (n - right))
    assert (found.mean, found.n) == (pytest.approx(right / n), n)
    assert bounds(found) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    "scores",
    [
        [0.2, 0.5, 0.9, 1.0, 0.4],
        [0.5] + [1.0] * 30,
        [0.0] * 30 + [0.5],
        [0.5, 1.0],
        [n / 40 for n in range(41)],
    ],
)
def test_graded_scores_get_an_interval_around_the_mean_within_their_range(
    scores: list[float],
) -> None:
    found = mean_interval(scores)
    assert found.mean == pytest.approx(sum(scores) / len(scores))
    assert min(scores) <= found.low < found.mean < found.high <= max(scores)


def test_the_bootstrap_is_close_to_the_textbook_interval_for_a_large_sample() -> None:
    scores = np.random.default_rng(1).beta(2, 3, 400)
    half = 1.96 * scores.std(ddof=1) / 20
    assert bounds(mean_interval(list(scores))) == pytest.approx(
        (scores.mean() - half, scores.mean() + half), abs=0.003
    )


def test_an_interval_is_the_same_each_time() -> None:
    assert mean_interval([0.1, 0.7, 0.3]) == mean_interval([0.1, 0.7, 0.3])


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 5, 50])
def test_equal_scores_do_not_claim_certainty(value: float, n: int) -> None:
    found = mean_interval([value] * n)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.high - found.low > 1 / (n + 4)


@pytest.mark.parametrize("scores", [[0.3, 0.1 + 0.2], [0.3, 0.1 + 0.2] * 20])
def test_scores_equal_but_for_rounding_count_as_equal(scores: list[float]) -> None:
    assert bounds(mean_interval(scores)) == pytest.approx(
        bounds(mean_interval([0.3] * len(scores)))
    )


def test_no_score_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        mean_interval([])


# By hand, with z = 1.95996: won and lost are each one more than seen, over n + 2 pairs: d ±
# z·√(((won + lost) − (won − lost)²/N)/N²).
@pytest.mark.parametrize(
    ("won", "lost", "tied", "low", "high", "p"),
    [
        (2, 1, 1, -0.5515, 0.8848, 1.0),  # N 6: 1/6 ± z·√(5 − 1/6)/6
        (12, 3, 35, 0.0250, 0.3212, 1152 / 2**15),  # N 52: 9/52 ± z·√(17 − 81/52)/52
        (0, 0, 18, -0.1386, 0.1386, 1.0),  # N 20: 0 ± z·√2/20
        (4, 0, 0, 0.0703, 1.0, 2 / 2**4),  # N 6: 4/6 ± z·√(6 − 16/6)/6 = 0.0703 … 1.2631, cut
    ],
)
def test_right_or_wrong_pairs_get_the_adjusted_wald_interval(
    won: int, lost: int, tied: int, low: float, high: float, p: float
) -> None:
    before = [0.0] * won + [1.0] * lost + [1.0] * tied
    after = [1.0] * won + [0.0] * lost + [1.0] * tied
    found = paired_gain(before, after)
    assert (found.mean, found.n) == (
        pytest.approx((won - lost) / (won + lost + tied)),
        won + lost + tied,
    )
    assert bounds(found) == pytest.approx((low, high), abs=5e-5)
    # p: 2 · P(at most the lesser of won + lost flips)
    assert (found.better, found.worse, found.p) == (won, lost, pytest.approx(p))


def test_missing_scores_drop_their_pairs() -> None:
    before, after = [0.0, None, 1.0, 0.0, 0.0], [1.0, 1.0, None, 0.0, 1.0]
    assert paired_gain(before, after) == paired_gain([0.0, 0.0, 0.0], [1.0, 0.0, 1.0])


def test_the_shorter_sequence_ends_the_pairing() -> None:
    assert paired_gain([0.0, 1.0, 0.0, 1.0], [1.0, 1.0]) == paired_gain([0.0, 1.0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("before", "after"), [([], []), ([None], [1.0]), ([1.0, None], [None, 1.0])]
)
def test_no_pair_has_no_gain(before: list[float | None], after: list[float | None]) -> None:
    with pytest.raises(ValueError, match="at least one example"):
        paired_gain(before, after)


@pytest.mark.parametrize(
    ("before", "after", "slack"),
    [
        ([0.0, 1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 0.0], 1e-12),
        ([0.25] * 6, [0.5] * 6, 1e-12),
        # bootstrap: random draws
        ([n / 50 for n in range(50)], [(n * 7 % 50) / 60 + 0.1 for n in range(50)], 0.02),
    ],
)
def test_swapping_the_sides_swaps_the_sign(
    before: list[float], after: list[float], slack: float
) -> None:
    there, back = paired_gain(before, after), paired_gain(after, before)
    assert there.mean == pytest.approx(-back.mean)
    assert bounds(there) == pytest.approx((-back.high, -back.low), abs=slack)


def test_equal_graded_gains_do_not_claim_certainty() -> None:
    found = paired_gain([0.25] * 6, [0.5] * 6)
    assert found.low < 0 < found.mean < found.high
    assert (found.better, found.worse, found.p) == (6, 0, None)


def test_gains_equal_but_for_rounding_count_as_equal() -> None:
    found = paired_gain([0.1, 0.2] * 10, [0.3, 0.4] * 10)  # 0.3 - 0.1 is not 0.4 - 0.2 in floats
    assert not math.isnan(found.low)
    assert bounds(found) == pytest.approx(bounds(paired_gain([0.0] * 20, [0.2] * 20)))


def covered(intervals: Sequence[Interval], truth: float) -> float:
    return sum(found.low <= truth <= found.high for found in intervals) / len(intervals)


def test_coverage_of_a_mean_of_right_or_wrong_scores() -> None:
    """Exact: every outcome of 40 rows, weighed by probability, for true rates from 0.1 to 0.9."""
    from scipy.stats import binom

    found = [mean_interval([1.0] * right + [0.0] * (40 - right)) for right in range(41)]
    rates = [percent / 100 for percent in range(10, 91)]
    coverage = [
        sum(
            binom.pmf(right, 40, p)
            for right in range(41)
            if found[right].low <= p <= found[right].high
        )
        for p in rates
    ]
    assert sum(coverage) / len(rates) >= 0.945
    assert min(coverage) >= 0.92


def test_coverage_of_a_mean_of_graded_scores() -> None:
    draws = np.random.default_rng(3).beta(3, 2, (SETS, 40))
    assert covered([mean_interval(list(row)) for row in draws], 0.6) >= 0.93


def test_coverage_of_a_gain_in_right_or_wrong_scores() -> None:
    rng = np.random.default_rng(4)
    before = rng.random((SETS, 40)) < 0.6
    # 0.6·0.9 + 0.4·0.5 = 0.74
    after = np.where(before, rng.random((SETS, 40)) < 0.9, rng.random((SETS, 40)) < 0.5)
    found = [
        paired_gain(list(map(float, b)), list(map(float, a)))
        for b, a in zip(before, after, strict=True)
    ]
    assert covered(found, 0.14) >= 0.93


def test_coverage_of_a_gain_in_graded_scores() -> None:
    rng = np.random.default_rng(5)
    before = rng.beta(2, 2, (SETS, 40))
    after = (before + rng.random((SETS, 40))) / 2  # both have mean 0.5
    found = [paired_gain(list(b), list(a)) for b, a in zip(before, after, strict=True)]
    assert covered(found, 0.0) >= 0.93

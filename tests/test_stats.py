"""Intervals against published and hand-computed numbers, and against a simulation of their
coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from optimize.stats.intervals import (
    Interval,
    above,
    mean_interval,
    paired_gain,
    power,
    rows_to_see,
    smallest_gain,
)

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
    assert 0 <= found.low < found.mean < found.high <= 1


GRADED = [0.3, 0.5, 0.7, 0.9]
# by hand, with one more of 0 and one of 1: mean 3.4 / 6, sd 0.3777, so the standard error
MIDDLE, ERROR = 3.4 / 6, 0.15420


def test_graded_scores_get_students_interval_with_two_more() -> None:
    """t(3) is 3.1824."""
    low = MIDDLE - 3.1824 * ERROR
    assert bounds(mean_interval(GRADED)) == pytest.approx((low, 1.0), abs=1e-3)
    found = paired_gain([0.2] * 4, [0.3, 0.3, 0.4, 0.4])
    # mean 0.6 / 6, mean square 2.1 / 6: 0.1 ± 3.1824 · √(0.35 − 0.01) / √6
    assert bounds(found) == pytest.approx((-0.6576, 0.8576), abs=5e-4)


@pytest.mark.parametrize("worse", [0.9, 0.67, 0.0])
def test_one_worse_score_never_makes_the_target_surer(worse: float) -> None:
    """Of scores that vary little Student's t alone would be all but certain."""
    best = [1.0] * 20
    assert above(0.95, [*best[1:], worse]) < above(0.95, best)
    assert mean_interval([*best[1:], worse]).low < mean_interval(best).low + 0.02
    assert above(0.1, [0.0] * 11 + [0.05]) > 0.05
    assert paired_gain([0.0] * 20, [0.0] * 19 + [-0.05]).low < paired_gain([0.0] * 20, best).low


@pytest.mark.parametrize(
    ("gains", "shares"), [((0.1, -1.0, 0.0), (0.2, 0.02, 0.78)), ((0.25, -1, 0), (0.2, 0.05, 0.75))]
)
@pytest.mark.parametrize("n", [24, 60, 200])
def test_one_sided_errors_of_small_gains_bought_with_rare_losses(
    gains: tuple[float, ...], shares: tuple[float, ...], n: int
) -> None:
    """An answer that cannot be read scores 0: a prompt that helps a little everywhere and breaks
    one row in fifty gains nothing.
    """
    rng = np.random.default_rng(7)
    drawn = rng.choice(gains, p=shares, size=(600, n)).tolist()
    assert np.mean([paired_gain([0.0] * n, found).low > 0 for found in drawn]) < 0.055


@pytest.mark.parametrize("n", [20, 40, 80])
def test_a_target_that_graded_scores_with_mass_at_their_ends_just_meet(n: int) -> None:
    rng = np.random.default_rng(8)
    drawn = rng.choice([0.0, 0.9, 1.0], p=[0.05, 0.15, 0.8], size=(600, n)).tolist()
    assert np.mean([above(0.935, found) >= 0.9 for found in drawn]) < 0.1
    assert np.mean([mean_interval(found).low > 0.935 for found in drawn]) < 0.035


@pytest.mark.parametrize(("right", "wrong", "target"), [(8, 2, 0.7), (20, 0, 0.9), (0, 20, 0.1)])
def test_the_probability_of_being_at_a_target_is_jeffreys_posterior(
    right: int, wrong: int, target: float
) -> None:
    """Its density, rate^(right - 1/2) · (1 - rate)^(wrong - 1/2), summed up by hand; as the square
    of a sine, where it has no poles.
    """
    angle = (np.arange(200_000) + 0.5) / 200_000 * np.pi / 2
    weight = np.sin(angle) ** (2 * right) * np.cos(angle) ** (2 * wrong)
    expected = weight[np.sin(angle) ** 2 >= target].sum() / weight.sum()
    assert above(target, [1.0] * right + [0.0] * wrong) == pytest.approx(expected, abs=1e-4)


def test_graded_scores_are_at_their_middle_in_half_of_the_cases() -> None:
    assert above(MIDDLE, GRADED) == pytest.approx(0.5)
    assert above(MIDDLE - 3.1824 * ERROR, GRADED) == pytest.approx(0.975, abs=1e-3)


def test_a_shift_moves_the_mean() -> None:
    scores = [1.0] * 8 + [0.0] * 2
    assert above(0.7, scores, -0.1) == pytest.approx(above(0.7, [1.0] * 7 + [0.0] * 3))
    assert above(MIDDLE + 0.1, GRADED, 0.1) == pytest.approx(0.5)


@pytest.mark.parametrize("rate", [0.03, 0.2, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("n", [20, 60])
def test_how_often_a_program_below_the_target_is_said_to_be_surely_at_it(
    rate: float, n: int
) -> None:
    """A program exactly at the target is called so with 90 % in about one case of ten; exact."""
    from scipy.stats import binom

    said = [above(rate, [1.0] * right + [0.0] * (n - right)) >= 0.9 for right in range(n + 1)]
    wrong = sum(binom.pmf(right, n, rate) for right in range(n + 1) if said[right])
    assert wrong < 0.16


@pytest.mark.parametrize(
    ("n", "gain", "differ"), [(20, 0.3, 0.4), (60, 0.15, 0.25), (150, 0.1, 0.3)]
)
def test_power_is_how_often_the_interval_excludes_no_gain(
    n: int, gain: float, differ: float
) -> None:
    rng = np.random.default_rng(n)
    won = (differ + gain) / 2
    shown = 0
    for _ in range(1500):
        kind = rng.choice(3, n, p=[won, differ - won, 1 - differ])
        after, before = (kind == 0).astype(float), (kind == 1).astype(float)
        shown += paired_gain(before.tolist(), after.tolist()).low > 0
    assert shown / 1500 == pytest.approx(power(n, gain, differ), abs=0.04)


def test_the_smallest_gain_and_the_rows_for_it_agree() -> None:
    gain = smallest_gain(100, 0.25)
    assert power(100, gain, 0.25) >= 0.8 > power(100, gain - 0.01, 0.25)
    assert rows_to_see(gain, 0.25) == pytest.approx(100, abs=6)
    assert smallest_gain(3, 0.25) > 0.7


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
        ([n / 50 for n in range(50)], [(n * 7 % 50) / 60 + 0.1 for n in range(50)], 1e-12),
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


def test_one_sided_errors_of_a_gain_in_few_skewed_graded_scores() -> None:
    """What would accept a tuning that gains nothing; nominally 2.5 %."""
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(1500):
        before, after = rng.beta(4, 0.8, 24), rng.beta(4, 0.8, 24)
        wrong += paired_gain(before.tolist(), after.tolist()).low > 0
    assert wrong / 1500 < 0.035

"""The best of several on the same rows: what is taken off for having been chosen, against a
simulation whose truth is known.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from optimize.stats.winner import corrected_best


def simulated(
    n: int, k: int, spread: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(k, n) right-or-wrong scores of programs whose errors correlate at 0.6, and their true scores
    around 0.65.
    """
    truth = np.clip(0.65 + spread * rng.standard_normal(k), 0.05, 0.95)
    rows = 0.6**0.5 * rng.standard_normal(n) + 0.4**0.5 * rng.standard_normal((k, n))
    return (rows < norm.ppf(truth)[:, None]).astype(float), truth


@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize("k", [2, 15])
@pytest.mark.parametrize("n", [20, 50, 200])
def test_the_correction_takes_off_most_of_the_optimism_and_no_more(
    n: int, k: int, spread: float
) -> None:
    rng = np.random.default_rng([n, k])
    raw, corrected, covered = [], [], 0
    for _ in range(200):
        scores, truth = simulated(n, k, spread, rng)
        best = int(scores.mean(axis=1).argmax())
        found = corrected_best(scores[best], [s for i, s in enumerate(scores) if i != best])
        raw.append(scores[best].mean() - truth[best])
        corrected.append(found.interval.mean - truth[best])
        covered += found.interval.low <= truth[best] <= found.interval.high
    assert abs(np.mean(corrected)) < max(0.4 * np.mean(raw), 0.015)
    assert covered / 200 > 0.88


def test_a_clear_winner_is_left_as_it_is() -> None:
    best, other = [1.0] * 45 + [0.0] * 5, [0.0] * 40 + [1.0] * 10
    found = corrected_best(best, [other])
    assert (
        found.optimism < 0.005
        and found.interval.mean == pytest.approx(0.9, abs=0.005)
        and found.k == 2
    )


def test_alone_or_with_programs_that_were_stopped_early_nothing_is_taken_off() -> None:
    best = [1.0, 0.0] * 20
    assert corrected_best(best, []).optimism == corrected_best(best, [[1.0] * 12]).optimism == 0.0


def test_missing_scores_are_left_out_of_the_choice() -> None:
    best: list[float | None] = [1.0, 0.0] * 20
    other = [None if n % 4 == 0 else s for n, s in enumerate(best)]
    assert corrected_best(best, [other]).interval.n == 40


def test_on_more_rows_the_optimism_of_the_first_choice_weighs_less() -> None:
    """Chosen from eight on 40 rows, then asked alone on 80 fresh ones."""
    rng = np.random.default_rng(5)
    first = rng.integers(0, 2, (8, 40)).astype(float).tolist()
    best = max(first, key=sum)
    others = [s for s in first if s is not best]
    fresh = rng.integers(0, 2, 80).astype(float).tolist()
    few, more = corrected_best(best, others), corrected_best(best + fresh, others, 40)
    assert more.optimism == pytest.approx(few.optimism / 3)
    assert more.interval.n == 120 and more.k == 8


def test_graded_scores_stay_within_0_and_1() -> None:
    rng = np.random.default_rng(0)
    scores = rng.beta(1, 9, (6, 30))
    best = int(scores.mean(axis=1).argmax())
    found = corrected_best(scores[best], [s for i, s in enumerate(scores) if i != best])
    assert (
        0 <= found.interval.low <= found.interval.mean <= found.interval.high <= 1
        and found.optimism > 0
    )

"""The racing test: its error rate under a look after every row, and what it saves, on populations
whose mean is exact.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import pytest
from scipy.special import erfinv

from optimize.stats.race import ERROR, evidence_below, hopeless


def population(rows: int, differ: float, gain: float, rng: np.random.Generator) -> list[float]:
    """Differences of two programs in random order: `differ` of the rows differ, their mean is
    `gain` to the row.
    """
    net, moved = round(gain * rows), round(differ * rows)
    won = (moved + net) // 2
    lost = won - net
    return list(rng.permutation([1.0] * won + [-1.0] * lost + [0.0] * (rows - won - lost)))


def stopped_at(differences: list[float], gain: float = 0.0) -> int:
    """After how many rows a race that looks at every row would stop: evidence never shrinks, so the
    first time is found by halving.
    """
    rows = len(differences)
    return 1 + bisect_left(
        range(1, rows), True, key=lambda n: evidence_below(gain, differences[:n], rows) >= 1 / ERROR
    )


@pytest.mark.parametrize("gain", [-0.3, 0.0, 0.3])
def test_evidence_never_shrinks(gain: float) -> None:
    rng = np.random.default_rng(0)
    for differences in (population(48, 0.5, gain, rng) for _ in range(20)):
        found = [evidence_below(0.0, differences[:n], 48) for n in range(1, 48)]
        assert found == sorted(found)


@pytest.mark.parametrize("rows", [24, 48, 150, 400])
@pytest.mark.parametrize("differ", [0.1, 0.5])
def test_an_equal_program_is_stopped_no_more_often_than_stated(rows: int, differ: float) -> None:
    rng = np.random.default_rng([rows, int(10 * differ)])
    wrong = sum(stopped_at(population(rows, differ, 0.0, rng)) < rows for _ in range(200))
    assert wrong / 200 <= ERROR + 2 * math.sqrt(ERROR * (1 - ERROR) / 200)


def test_it_stops_as_soon_as_the_rest_cannot_make_up() -> None:
    assert (
        evidence_below(0.0, [-1.0] * 6, 10) == math.inf
        and evidence_below(0.0, [-1.0] * 3, 40) < math.inf
    )


def raced(gain: float, rng: np.random.Generator, rows: int = 48) -> tuple[float, float]:
    """(mean gain on all rows, share of them asked) of a challenger, raced in blocks of twelve."""
    latent = 0.6**0.5 * rng.standard_normal(rows)
    noise = 0.4**0.5 * rng.standard_normal((2, rows))
    right = latent + noise < [[0.0], [float(np.sqrt(2) * erfinv(2 * gain))]]
    found = (right[1].astype(float) - right[0]).tolist()
    end = next((n for n in range(12, rows, 12) if hopeless(found[:n], rows, 1.0)), rows)
    return float(np.mean(found)), end / rows


@pytest.mark.parametrize(("gain", "most"), [(0.0, 0.9), (-0.05, 0.8), (-0.1, 0.72), (-0.3, 0.4)])
def test_what_cannot_be_promoted_any_more_is_asked_on_fewer_rows(gain: float, most: float) -> None:
    rng = np.random.default_rng(3)
    assert np.mean([raced(gain, rng)[1] for _ in range(200)]) < most


@pytest.mark.parametrize("gain", [0.1, 0.15, 0.25])
def test_a_race_stops_few_that_would_have_been_promoted(gain: float) -> None:
    rng = np.random.default_rng(4)
    found = [raced(gain, rng) for _ in range(400)]
    lost = [share < 1 for mean, share in found if mean > 0.12]  # beyond a standard error
    assert np.mean(lost) < 0.05


def test_a_cheaper_program_is_given_longer() -> None:
    level = [0.0] * 9 + [-1.0] + [0.0] * 14
    assert not hopeless(level, 48, -0.5) and hopeless([*level, *[-1.0] * 6], 48, 1.0)
    assert not hopeless([], 48, 1.0) and not hopeless([-1.0] * 48, 48, 1.0)


def test_without_rows_there_is_no_evidence() -> None:
    assert evidence_below(0.0, [], 50) == 1.0

"""The racing test: its error rate under a look after every row, and what it saves, on populations
whose mean is exact.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import pytest

from optimize.stats.race import ERROR, evidence_below, surely_below


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
        range(1, rows), True, key=lambda n: surely_below(gain, differences[:n], rows)
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


@pytest.mark.parametrize(("rows", "share"), [(48, 0.6), (150, 0.35), (400, 0.2)])
def test_a_program_twenty_points_worse_costs_a_fraction_of_the_rows(
    rows: int, share: float
) -> None:
    rng = np.random.default_rng(rows)
    asked = [stopped_at(population(rows, 0.3, -0.2, rng)) / rows for _ in range(100)]
    assert float(np.mean(asked)) < share


def test_it_stops_as_soon_as_the_rest_cannot_make_up() -> None:
    assert (
        evidence_below(0.0, [-1.0] * 6, 10) == math.inf
        and evidence_below(0.0, [-1.0] * 3, 40) < math.inf
    )


def test_a_lead_that_cannot_be_lost_is_no_evidence() -> None:
    assert not surely_below(0.0, [1.0] * 6 + [-1.0] * 2, 10)


def test_without_rows_there_is_no_evidence() -> None:
    assert evidence_below(0.0, [], 50) == 1.0

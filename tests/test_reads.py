"""How often rows have judged, and what a further reading may spend."""

from __future__ import annotations

import pytest

from optimize.climb.verdict import CONFIRMED, confirms
from optimize.finetune.accept import level
from optimize.stats.reads import readings, spent

ROWS = ["a", "b", "c", "d"]
FIRST = {"a": 1.0, "b": 0.0, "c": 1.0, "d": None}


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ([], 1),
        ([FIRST], 1),
        ([FIRST, dict(FIRST)], 1),  # the same program, run again
        ([FIRST, {"a": 1.0, "b": 0.0}], 1),  # and before rows were added
        ([FIRST, FIRST | {"a": 0.0}], 2),
        ([FIRST, {"a": 0.0}], 2),  # a quarter of a reading more
        ([FIRST, {"a": 0.0}, {"b": 1.0}, {"c": 0.0}, {"d": 1.0}], 2),
        ([FIRST, {"x": 1.0, "y": 0.0}], 1),  # other rows
    ],
)
def test_readings_are_counted_row_by_row(
    programs: list[dict[str, float | None]], expected: int
) -> None:
    assert readings(ROWS, programs) == expected


def test_however_many_follow_the_first_errors_have_an_end() -> None:
    assert spent(1) == 1
    assert sum(spent(k) for k in range(1, 10_000)) < 1.645
    assert confirms(CONFIRMED, 1) and not confirms(CONFIRMED, 2)
    assert level(1) == 0.95 and level(3) == pytest.approx(1 - 0.05 / 9)

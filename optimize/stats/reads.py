"""How often rows have judged: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

ByRow = Mapping[str, float | None]  # a program's scores, by the hash of the row


def readings(rows: Sequence[str], programs: Iterable[ByRow]) -> int:
    """How many programs these rows have judged, on average and rounded up.

    Rows that were added since, or were on another side, have judged fewer. Programs with the same
    scores on the rows that both were asked count as one. At least 1.
    """
    today = set(rows)
    asked = {frozenset((r, s) for r, s in scores.items() if r in today) for scores in programs}
    different: list[frozenset[tuple[str, float | None]]] = []
    for found in sorted(asked, key=len, reverse=True):
        if not any(found <= other for other in different):
            different.append(found)
    return max(1, math.ceil(sum(map(len, different)) / len(today) - 1e-9))


def spent(reading: int) -> float:
    """The share of an error rate that the program judged as the n-th by the same rows may spend.

    1/n²: the first has all of it, and however many follow, all together err at most π²/6 = 1.64
    times as often as that. (1/n, Bonferroni's for n at once, has no such end: errors at earlier
    readings stand.)
    """
    return 1 / reading**2

"""Is one program surely no better than another, before all rows are asked?

A test that holds however often one looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ERROR = 0.05  # how often a race may stop although the gain on all rows is as large as asked for
TINY = 1e-9
BOLDEST = 0.75  # of the largest bet that cannot lose everything at once


def evidence_below(gain: float, differences: Sequence[float], rows: int) -> float:
    """Evidence that the mean difference over all `rows` rows is below `gain`, from those seen
    first, in random order.

    A test martingale by betting (Waudby-Smith & Ramdas, 2024) for sampling without replacement (the
    same, 2020): a gambler who bets against "the mean is `gain` or more" at the odds that this would
    give; the wealth, 1 at the start, is returned at its highest. It reaches 1/e with probability at
    most e if the mean is `gain` or more, whenever one looks (Ville 1939). inf: the rows not yet
    seen cannot make up for those that were. differences lie in [-1, 1].
    """
    wealth = highest = 1.0
    # of differences scaled to [0, 1]; a first guess of their spread, worth one row
    total, squares = 0.0, 0.25
    middle = (gain + 1) / 2
    for seen, difference in enumerate(differences):
        x = (difference + 1) / 2
        left = rows - seen
        # the mean of what is left, if `gain` is the mean of all
        odds = (rows * middle - total) / left
        if odds > 1 - TINY and x < 1 - TINY:
            return math.inf
        if odds <= 0:
            return highest
        variance = squares / (seen + 1)
        bet = min(
            math.sqrt(2 * math.log(1 / ERROR) / (variance * rows)), BOLDEST / max(TINY, 1 - odds)
        )
        wealth *= 1 + bet * (odds - x)
        highest = max(highest, wealth)
        total += x
        squares += (x - (total + 0.5) / (seen + 2)) ** 2
    left = rows - len(differences)
    return math.inf if rows * middle - total > left + TINY else highest


def surely_below(gain: float, differences: Sequence[float], rows: int) -> bool:
    """Whether the race may stop: the mean difference over all rows is below `gain`, with an error
    rate of ERROR.
    """
    return evidence_below(gain, differences, rows) >= 1 / ERROR

"""May a program still win, before all rows are asked? Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence

ERROR = 0.05  # how often a test may say "below" although the gain on all rows is not
FUTILE = 0.02  # chance of still being promoted up to which a challenger is stopped
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


def hopeless(differences: Sequence[float], rows: int, errors: float) -> bool:
    """Whether a challenger may be stopped, because its gain over all `rows` rows will hardly be
    more than so many standard errors: with a probability of FUTILE or less.

    Conditional power at the gain seen so far (Lachin 2005), predictive: the mean of the rows to
    come is Student's t around that of the rows seen, with the uncertainty of both. differences:
    those seen, in random order. One row won and one lost are added, so that a few equal rows claim
    nothing.
    """
    from scipy.stats import t

    n, left = len(differences), rows - len(differences)
    if n == 0 or left <= 0:
        return False
    mean = math.fsum(differences) / (n + 2)
    variance = (math.fsum(d * d for d in differences) + 2) / (n + 2) - mean**2
    bar = errors * math.sqrt(variance * rows)  # of the sum over all rows
    needed = (bar - math.fsum(differences)) / left
    spread = math.sqrt(variance * (1 / left + 1 / (n + 2)))
    return float(t.sf((needed - mean) / spread, n + 1)) <= FUTILE

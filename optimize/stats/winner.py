"""What the best of several programs would score had it not been chosen by these rows.

Numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from optimize.stats.intervals import Interval, mean_interval, wilson

RESAMPLES = 400


@dataclass(frozen=True)
class Corrected:
    """A chosen program's score with the optimism of having been chosen removed.

    interval: around the corrected score, as wide as the uncorrected one's. optimism: what was
    removed. k: programs chosen from.
    """

    interval: Interval
    optimism: float
    k: int


def corrected_best(
    best: Sequence[float | None], others: Sequence[Sequence[float | None]]
) -> Corrected:
    """The score of `best`, chosen as the highest of itself and `others` on the same rows.

    Bootstrap bias correction (Tsamardinos et al., 2018, BBC-CV): rows are drawn with replacement,
    the choice is made again on those drawn, and the chosen program's mean on the rows left out is
    what the choice is worth. The average over draws, where it lies below the raw mean, replaces it.
    Programs whose race was stopped early could not have been chosen and are left out, as in that
    paper's BBCD. Rows that any of the programs misses are left out of the choice, not of the score.
    bench/estimates.py has the bias that remains. Raises ValueError where `best` has no score.
    """
    import numpy as np

    raw = mean_interval([s for s in best if s is not None])
    rivals = [o for o in others if len(o) == len(best)]
    matrix = np.array(
        [[np.nan if s is None else s for s in row] for row in (best, *rivals)], dtype=float
    )
    complete = matrix[:, ~np.isnan(matrix).any(axis=0)]
    n = complete.shape[1]
    if not rivals or n < 2:
        return Corrected(raw, 0.0, 1 + len(rivals))
    drawn = _draws(n)
    out = (drawn == 0).astype(float)
    # `best` is first, so it wins its ties, as it did
    chosen = np.argmax(drawn @ complete.T, axis=1)
    left_out = (out @ complete.T)[np.arange(len(out)), chosen] / out.sum(axis=1)
    optimism = max(0.0, float(complete[0].mean() - left_out.mean()))
    return Corrected(
        _shifted(raw, optimism, bool(np.isin(complete[0], (0, 1)).all())), optimism, 1 + len(rivals)
    )


@cache
def _draws(n: int) -> Any:
    """(draws, n): how often each row is drawn; no draw takes every row once, so that some are
    always left out.
    """
    import numpy as np

    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    return drawn[(drawn == 0).any(axis=1)]


def _shifted(raw: Interval, optimism: float, right_or_wrong: bool) -> Interval:
    """The interval moved down; for 0/1 scores Wilson's at the corrected mean, which keeps its shape
    near 0 and 1.
    """
    mean = max(0.0, raw.mean - optimism)
    return (
        wilson(mean, raw.n)
        if right_or_wrong
        else Interval(mean, max(0.0, raw.low - optimism), max(mean, raw.high - optimism), raw.n)
    )

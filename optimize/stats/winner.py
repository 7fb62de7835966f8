"""What the best of several programs would score had it not been chosen by these rows.

Numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from optimize.stats.intervals import Interval, known, mean_interval, wilson

RESAMPLES = 400
TINY = 1e-9


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
    best: Sequence[float | None],
    others: Sequence[Sequence[float | None]],
    chosen_on: int | None = None,
) -> Corrected:
    """The score of `best`, chosen as the highest of itself and `others` on the same rows.

    Bootstrap bias correction (Tsamardinos et al., 2018, BBC-CV): rows are drawn with replacement,
    the choice is made again on those drawn, and the chosen program's mean on the rows left out is
    what the choice is worth. The average over draws, where it lies below the raw mean, is what is
    taken off. Programs whose race was stopped early could not have been chosen and are left out,
    as in that paper's BBCD; a row that a program misses is left out of that program's mean.

    chosen_on: the first so many rows, on which all programs competed; on the rows after them only
    the last few did. The optimism of the first choice weighs as much as its rows do, and that of
    the last choice is taken where it is larger. bench/estimates.py has the bias that remains.
    Raises ValueError where `best` has no score.
    """
    scored = known(best)
    raw, first = mean_interval(scored), min(chosen_on or len(best), len(best))
    rivals = [o[:first] for o in others if len(o) >= first]
    finalists = [o[: len(best)] for o in others if len(o) >= len(best) > first]
    share = len(known(best[:first])) / len(scored)
    optimism = max(share * _optimism(best[:first], rivals), _optimism(best, finalists))
    right_or_wrong = set(scored) <= {0.0, 1.0}
    return Corrected(_shifted(raw, optimism, right_or_wrong), optimism, 1 + len(rivals))


def _optimism(best: Sequence[float | None], rivals: Sequence[Sequence[float | None]]) -> float:
    import numpy as np

    scores = np.array([[np.nan if s is None else s for s in row] for row in (best, *rivals)], float)
    scores = scores[:, ~np.isnan(scores[0])]
    n = scores.shape[1]
    if not rivals or n < 2:
        return 0.0
    there, scores = (~np.isnan(scores)).astype(float), np.nan_to_num(scores)
    drawn = _draws(n)
    out = (drawn == 0).astype(float)
    means = drawn @ scores.T / np.maximum(drawn @ there.T, TINY)
    # `best` is first, so it wins its ties, as it did
    chosen, draws = means.argmax(axis=1), np.arange(len(drawn))
    counts = (out @ there.T)[draws, chosen]
    left_out = (out @ scores.T)[draws, chosen][counts > 0] / counts[counts > 0]
    return max(0.0, float(scores[0].mean() - left_out.mean()))


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

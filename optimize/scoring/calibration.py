"""Does the LM know when it is wrong? How sure it was of its answers, held against their scores.
Asks no LM.

Expected calibration error with bins of equal numbers (Naeini et al. 2015; Nixon et al. 2019), the
Brier score (1950), and the score of the answers it was surest of (selective prediction: El-Yaniv
and Wiener 2010).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from pydantic import Field

from optimize.scoring.evaluation import Evaluation
from optimize.stats.intervals import paired_gain
from optimize.stats.records import Record

ROWS_A_BIN = 10  # at least
FLOOR_DRAWS = 200
Pair = tuple[float, float]  # confidence, score
BINS = 10  # at most


class BinRecord(Record):
    """Answers of like confidence: its mean, and the mean score."""

    confidence: float
    score: float
    n: int


class RangeRecord(Record):
    """A difference with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


class ConfidenceRecord(Record):
    """How far confidence and score agree, over the rows for which both are known."""

    n: int
    mean: float
    ece: float = Field(
        description="mean distance of confidence and score, bin by bin; 0 is perfect"
    )
    floor: float | None = Field(
        description="the same, on average, of a perfectly calibrated LM with these confidences on "
        "so many rows; null for graded scores, which vary less"
    )
    brier: float = Field(description="mean squared distance of confidence and score, row by row")
    surest_half: float = Field(
        description="score on the half of the rows with the surest answers, and those equally sure"
    )
    bins: list[BinRecord]


def confidence(found: Evaluation) -> ConfidenceRecord | None:
    """None where fewer than two bins of rows say how sure the LM was."""
    pairs = _sorted(
        (o.confidence, o.score)
        for o in found.outcomes
        if o.confidence is not None and o.score is not None
    )
    if len(pairs) < 2 * ROWS_A_BIN:
        return None
    bins = [
        BinRecord(
            confidence=fmean(c for c, _ in part), score=fmean(s for _, s in part), n=len(part)
        )
        for part in _bins(pairs)
    ]
    return ConfidenceRecord(
        n=len(pairs),
        mean=fmean(c for c, _ in pairs),
        ece=_error(pairs),
        floor=_floor(pairs) if {s for _, s in pairs} <= {0.0, 1.0} else None,
        brier=fmean((c - s) ** 2 for c, s in pairs),
        surest_half=fmean(s for c, s in pairs if c >= pairs[len(pairs) // 2][0]),
        bins=bins,
    )


def brier_change(before: Evaluation, after: Evaluation) -> RangeRecord | None:
    """The Brier score after minus before, on the rows where both are known, paired; None where
    fewer than two bins of rows are. Below 0: the LM knows better when it is wrong.

    Not that of the calibration error, whose part by chance is the larger the less sure an LM is:
    two perfectly calibrated ones would differ.
    """
    both = [
        ((a.confidence - a.score) ** 2, (b.confidence - b.score) ** 2)
        for a, b in zip(before.outcomes, after.outcomes, strict=True)
        if a.confidence is not None
        and a.score is not None
        and b.confidence is not None
        and b.score is not None
    ]
    if len(both) < 2 * ROWS_A_BIN:
        return None
    found = paired_gain([a for a, _ in both], [b for _, b in both])
    return RangeRecord(mean=found.mean, low=found.low, high=found.high)


def _sorted(pairs: Iterable[Pair]) -> list[Pair]:
    """By confidence alone: scores must not tell rows of equal confidence apart."""
    return sorted(pairs, key=lambda pair: pair[0])


def _bins(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    """Sorted pairs in bins of equal numbers, but that rows of equal confidence stay together."""
    count = max(1, min(BINS, len(pairs) // ROWS_A_BIN))
    cuts = [0]
    for n in range(1, count):
        cut = len(pairs) * n // count
        while cut < len(pairs) and pairs[cut][0] == pairs[cut - 1][0]:
            cut += 1
        cuts.append(cut)
    return [pairs[low:high] for low, high in pairwise([*cuts, len(pairs)]) if low < high]


def _error(pairs: Sequence[Pair]) -> float:
    """Expected calibration error of sorted (confidence, score) pairs."""
    return sum(abs(sum(c - s for c, s in part)) for part in _bins(pairs)) / len(pairs)


def _floor(pairs: Sequence[Pair]) -> float:
    """What chance alone makes of it: answers drawn as right as often as their confidence says."""
    rng = random.Random(0)
    return fmean(
        _error([(c, float(rng.random() < c)) for c, _ in pairs]) for _ in range(FLOOR_DRAWS)
    )

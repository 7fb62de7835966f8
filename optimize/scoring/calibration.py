"""Does the LM know when it is wrong? How sure it was of its answers, held against their scores.
Asks no LM.

Expected calibration error with bins of equal numbers (Naeini et al. 2015; Nixon et al. 2019), the
Brier score (1950), and the score of the answers it was surest of (selective prediction: El-Yaniv
and Wiener 2010).
"""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

from pydantic import Field

from optimize.scoring.evaluate import Evaluation
from optimize.stats.records import Record

ROWS_A_BIN = 10  # at least
BINS = 10  # at most


class BinRecord(Record):
    """Answers of like confidence: its mean, and the mean score."""

    confidence: float
    score: float
    n: int


class ConfidenceRecord(Record):
    """How far confidence and score agree, over the rows for which both are known."""

    n: int
    mean: float
    ece: float = Field(
        description="mean distance of confidence and score, bin by bin; 0 is perfect"
    )
    brier: float = Field(description="mean squared distance of confidence and score, row by row")
    surest_half: float = Field(description="score on the half of the rows with the surest answers")
    bins: list[BinRecord]


def confidence(found: Evaluation) -> ConfidenceRecord | None:
    """None where fewer than two bins of rows say how sure the LM was."""
    pairs = sorted(
        (o.confidence, o.score)
        for o in found.outcomes
        if o.confidence is not None and o.score is not None
    )
    if len(pairs) < 2 * ROWS_A_BIN:
        return None
    count = min(BINS, len(pairs) // ROWS_A_BIN)
    cuts = [len(pairs) * n // count for n in range(count + 1)]
    parts = [pairs[low:high] for low, high in pairwise(cuts)]
    bins = [
        BinRecord(
            confidence=fmean(c for c, _ in part), score=fmean(s for _, s in part), n=len(part)
        )
        for part in parts
    ]
    return ConfidenceRecord(
        n=len(pairs),
        mean=fmean(c for c, _ in pairs),
        ece=sum(b.n * abs(b.confidence - b.score) for b in bins) / len(pairs),
        brier=fmean((c - s) ** 2 for c, s in pairs),
        surest_half=fmean(s for _, s in pairs[len(pairs) // 2 :]),
        bins=bins,
    )

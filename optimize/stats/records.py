"""Numbers as reports and stores keep them. Knows neither LMs nor screens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from optimize.stats.intervals import Gain, Interval, paired_gain
from optimize.stats.judge import Confusion, corrected_gain


def percent(probability: float) -> str:
    if probability < 0.001:
        return "below 0.1 %"
    return "above 99.9 %" if probability > 0.999 else f"{100 * probability:.1f} %"


def rows(n: int, side: str = "") -> str:
    """So many rows, in words: 1 val row, 20 val rows."""
    return f"{n:,} {side} {'row' if n == 1 else 'rows'}".replace("  ", " ")


class Record(BaseModel):
    """Frozen, and no field that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoreRecord(Record):
    """A mean score in 0…1 with its 95 % interval, on n scored rows of `coverage` of those asked."""

    score: float
    low: float
    high: float
    n: int
    coverage: float = 1.0
    lm_noise: float | None = Field(
        None,
        description="the LM's own part of the standard error; null unless rows were asked "
        "repeatedly",
    )
    unread: int = Field(
        0, description="rows beside these that are longer than the LM reads: in no comparison"
    )

    def __str__(self) -> str:
        return f"{self.score:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def with_n(self) -> str:
        """For where no column of its own says how many rows it stands on."""
        return f"{self} n={self.n}"

    @classmethod
    def of(
        cls,
        interval: Interval,
        coverage: float = 1.0,
        noise: float | None = None,
        unread: int = 0,
    ) -> ScoreRecord:
        return cls(
            score=interval.mean,
            low=interval.low,
            high=interval.high,
            n=interval.n,
            coverage=coverage,
            lm_noise=noise,
            unread=unread,
        )


class GainRecord(Record):
    """A paired difference of two programs on the same n rows, with its 95 % interval.

    better, worse: rows that changed each way. p: exact McNemar; null for graded scores.
    """

    mean: float
    low: float
    high: float
    n: int
    better: int
    worse: int
    p: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    @property
    def changed(self) -> str:
        """How many rows changed each way, and how likely so uneven a change is by chance."""
        p = (
            ""
            if self.p is None
            else f", p {'< 0.001' if self.p < 0.001 else f'= {self.p:.3f}'} (exact McNemar)"
        )
        return f"{self.better} rows better, {self.worse} worse{p}"

    @classmethod
    def between(
        cls,
        before: Sequence[float | None],
        after: Sequence[float | None],
        judge: Confusion | None = None,
    ) -> GainRecord:
        """Of two programs' scores on the same rows, in the same order. judge: how the LM judge errs
        that gave both, for which this is corrected.
        """
        return cls.of(corrected_gain(paired_gain(before, after), judge))

    @classmethod
    def of(cls, gain: Gain) -> GainRecord:
        return cls(**asdict(gain))


class RowScores(Record):
    """How programs scored each row.

    rows: content hashes; programs: name → score a row, null where the call failed.
    """

    rows: list[str]
    programs: dict[str, list[float | None]]

    def of(self, name: str) -> dict[str, float | None]:
        """A program's scores by row."""
        return dict(zip(self.rows, self.programs[name], strict=True))

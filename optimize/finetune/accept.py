"""Accept the tuned LM, or revert to the best prompt program?

A pure function of both gains and what was forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pydantic import Field

from optimize.climb.verdict import COVERAGE
from optimize.finetune.forgetting import ForgettingRecord
from optimize.stats.intervals import LEVEL, Gain
from optimize.stats.reads import spent
from optimize.stats.records import GainRecord, Record

WRONG_IF = (
    "what is asked drifts away from these rows (see the slice of test rows unlike any train row)",
    "the base LM is retired or replaced: the adapter fits these weights only",
    "the rules behind the labels change",
    "the LM comes to be used for something that was not named as what must not get worse",
)


class DecisionRecord(Record):
    """Whether the tuned LM is accepted, on what grounds, and what would make that wrong one day."""

    accepted: bool
    tuned: str = Field(description="which of the tuned programs was judged")
    val: GainRecord = Field(description="over the best prompt program")
    test: GainRecord = Field(
        description="the same on test; its interval is the wider the more tuned LMs these rows "
        "have judged"
    )
    tunings: int = Field(
        description="how many tuned LMs these test rows have judged, this one included"
    )
    answered: float = Field(
        default=1.0, description="share of the test rows asked that both have a score for"
    )
    least_gain: float = Field(description="on test, below which weights are not worth their upkeep")
    baseline: str | None = Field(
        default=None, description="the best baseline without an LM on test; null where none is"
    )
    over_baseline: GainRecord | None = Field(default=None, description="on test, over it")
    wrong_if: list[str]
    decided: str = Field(description="the day, ISO 8601")

    @property
    def matched(self) -> bool:
        """Whether a baseline without an LM may as well be as good as the tuned LM."""
        return self.over_baseline is not None and self.over_baseline.low <= 0

    @property
    def sure(self) -> bool:
        """Whether it surely beats the best prompt program."""
        return self.val.mean > 0 and self.test.low > 0


def level(tunings: int) -> float:
    """Confidence of the interval on test of the n-th tuned LM that the rows judge (`spent`)."""
    return 1 - (1 - LEVEL) * spent(tunings)


def accept(
    name: str,
    val: Gain,
    test: Gain,
    tunings: int,
    forgetting: Sequence[ForgettingRecord],
    least_gain: float,
    answered: float = 1.0,
) -> DecisionRecord:
    """Accept only a gain on val that test confirms beyond its interval and that is worth it, with
    nothing broken that the user named.

    val, test: over the best prompt program; test at `level(tunings)`. tunings: how many these test
    rows have judged, this one included. least_gain: what the task's owner asks of a tuning.
    answered: share of the test rows with a score of both; the rows that calls failed on are no
    random ones, so that too few of them accept nothing.
    """
    found = DecisionRecord(
        accepted=False,
        tuned=name,
        val=GainRecord.of(val),
        test=GainRecord.of(test),
        tunings=tunings,
        answered=answered,
        least_gain=least_gain,
        wrong_if=list(WRONG_IF),
        decided=date.today().isoformat(),
    )
    harmless = not any(f.regressed and f.named for f in forgetting)
    accepted = answered >= COVERAGE and found.sure and test.mean >= least_gain and harmless
    return found.model_copy(update={"accepted": accepted})

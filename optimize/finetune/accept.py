"""Accept the tuned LM, or revert to the best prompt program?

A pure function of both gains and what was forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pydantic import Field

from optimize.finetune.forgetting import ForgettingRecord
from optimize.stats.intervals import LEVEL, Gain
from optimize.stats.records import Record

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
    tunings: int = Field(
        description="how many tuned LMs these test rows have judged, this one included"
    )
    reasons: list[str]
    wrong_if: list[str]
    decided: str = Field(description="the day, ISO 8601")


def level(tunings: int) -> float:
    """Confidence of the interval on test that keeps all of so many tunings' intervals together at
    LEVEL (Bonferroni).
    """
    return 1 - (1 - LEVEL) / tunings


def accept(
    name: str,
    val: Gain,
    test: Gain,
    tunings: int,
    forgetting: Sequence[ForgettingRecord],
    least_gain: float,
) -> DecisionRecord:
    """Accept only a gain on val that test confirms beyond its interval and that is worth it, with
    nothing broken that the user named.

    val, test: over the best prompt program; test at `level(tunings)`. tunings: how many these test
    rows have judged, this one included. least_gain: what the task's owner asks of a tuning.
    """
    sure, worth = val.mean > 0 and test.low > 0, test.mean >= least_gain
    moved = f"{val.mean:+.3f} on val, {test.mean:+.3f} [{test.low:+.3f}, {test.high:+.3f}] on test"
    reasons = [
        f"Over the best prompt program it gains {moved}: "
        f"{'a gain beyond its interval' if sure else 'not surely a gain'}."
    ]
    if tunings > 1:
        reasons.append(
            f"These test rows have judged {tunings} tuned LMs by now; that interval allows for all "
            "of them."
        )
    if not worth:
        reasons.append(
            f"That is less than {least_gain:+.3f}, below which the task says that weights are not "
            "worth their upkeep."
        )
    for found in forgetting:
        what = "must not get worse" if found.named else "not named as what must not get worse"
        state = (
            "got worse"
            if found.regressed
            else "held"
            if found.held
            else "neither shown to hold nor to break"
        )
        reasons.append(
            f"{found.name} ({what}) {state}: {found.base:.2f} to {found.tuned:.2f} on {found.n}."
        )
    return DecisionRecord(
        accepted=sure and worth and not any(f.regressed and f.named for f in forgetting),
        tuned=name,
        tunings=tunings,
        reasons=reasons,
        wrong_if=list(WRONG_IF),
        decided=date.today().isoformat(),
    )

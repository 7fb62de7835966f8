"""Accept the tuned LM, or revert to the best prompt program? A pure function of val, test and what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from optimize.ladder import Attempt
from optimize.report import DecisionRecord, ForgettingRecord, TestRecord

WRONG_IF = (
    "what is asked drifts away from these rows (see the slice of test rows unlike any train row)",
    "the base LM is retired or replaced: the adapter fits these weights only",
    "the rules behind the labels change",
    "the LM comes to be used for something that was not named as what must not break",
)


def decide(chosen: Attempt, test: TestRecord, forgetting: Sequence[ForgettingRecord]) -> DecisionRecord:
    """Accept only a gain on val that test confirms beyond its interval, with nothing broken that the user named."""
    assert chosen.gain and test.tuned_gain
    gained = chosen.gain.mean > 0 and test.tuned_gain.low > 0
    moved = f"{chosen.gain.mean:+.3f} on val, {test.tuned_gain.mean:+.3f} [{test.tuned_gain.low:+.3f}, {test.tuned_gain.high:+.3f}] on test"
    reasons = [f"Over the best prompt program it gains {moved}: {'a gain beyond its interval' if gained else 'not surely a gain'}."]
    for found in forgetting:
        what = "must not break" if found.named else "not named as what must not break"
        state = "broke" if found.broke else "held" if found.held else "neither shown to hold nor to break"
        reasons.append(f"{found.name} ({what}) {state}: {found.base:.2f} to {found.tuned:.2f} on {found.n}.")
    return DecisionRecord(
        accepted=gained and not any(f.broke and f.named for f in forgetting),
        tuned=chosen.rung,
        reasons=reasons,
        wrong_if=list(WRONG_IF),
        decided=date.today().isoformat(),
    )

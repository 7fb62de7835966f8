"""The verdict, a pure function of the scores so far. First version: the intervals are not corrected for selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from optimize.stats import Interval, mean_interval, paired_gain

Verdict = Literal["reached", "improving", "plateau", "indecisive", "budget", "exhausted"]
FAMILIES = ("demos", "instructions")  # the kinds of lever that must have been tried before prompting is given up


@dataclass(frozen=True)
class Tried:
    """One scored program: the family of its lever and its score for each val example (None: missing)."""

    family: str
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    reason: str


def promotes(gain: Interval, cheaper: bool) -> bool:
    """Whether the rungs that follow build on a challenger: it gains more than one standard error, or it takes fewer
    calls and is not surely worse.

    After the one-standard-error rule of Breiman et al. (1984): what costs more must be better by more than noise.
    It is a rule for building on, not a proof: the climb ends with the best of all it built on, and the score that counts
    is the one on test, which no choice has touched.
    """
    return gain.mean > gain.error or (cheaper and gain.high >= 0)


def decide(best: Tried, tried: Sequence[Tried], target: float, *, rungs_left: bool, budget_left: bool) -> Decision:
    """Whether the target is reached, out of reach of prompting, or not decidable on this val set.

    reached: the best program's mean score is at the target. plateau: demos and instructions were tried, and neither the
    best program's own interval nor any attempt's gain over it, at its upper end, reaches the target. Short of both,
    the climb is `improving` while it can go on; then it ends in `budget`, `exhausted` (a family was never tried)
    or `indecisive` (the intervals are too wide for this val set).
    """
    own = mean_interval([s for s in best.scores if s is not None])
    if own.mean >= target:
        return Decision("reached", f"The best program scores {own.mean:.3f} on {own.n} val rows; the target is {target}.")
    ceiling = max([own.high, *(own.mean + paired_gain(best.scores, t.scores).high for t in tried)])
    missing = [family for family in FAMILIES if family not in {t.family for t in tried}]
    span = f"the best program scores {own.mean:.3f} on {own.n} val rows; at the upper end prompting may reach {ceiling:.3f}"
    if not missing and ceiling < target:
        return Decision("plateau", f"Demos and instructions were tried and {span}, below the target {target}.")
    if rungs_left and budget_left:
        return Decision("improving", f"So far {span}.")
    if not budget_left:
        return Decision("budget", f"The cap on LM calls ended the climb: {span}.")
    if missing:
        return Decision("exhausted", f"No rung is left, but none of {', '.join(missing)} could be tried: {span}.")
    return Decision("indecisive", f"The val set is too small to tell: {span}, and the target is {target}.")

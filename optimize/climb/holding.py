"""Does a program in use still hold? Pure functions of scores, as optimize.climb.verdict is one.

What their outcomes mean in words is written in optimize.report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from optimize.climb.verdict import COVERAGE, ERROR, confirms
from optimize.stats.intervals import LEVEL, Gain, Interval, known, paired_gain
from optimize.stats.judge import Confusion, chance_at_least, corrected_gain
from optimize.stats.two_samples import mean_change

Recheck = Literal["still at target", "worse", "better", "cannot tell"]
Watch = Literal["ok", "relabel", "re-optimize", "retrain", "cannot tell"]
ALARM = 0.05  # how often all tests of unlabelled rows together may cry wolf


@dataclass(frozen=True)
class Held:
    """What test rows say of a program asked again. gain: over what is on record, pair by pair.
    chance: probability, by these rows alone, that it is at the target. at_target: it is high
    enough, however often the rows were read.
    """

    verdict: Recheck
    gain: Gain
    chance: float
    at_target: bool


def held(
    target: float,
    before: Sequence[float | None],
    after: Sequence[float | None],
    lms: int = 1,
    reads: int = 1,
    judge: Confusion | None = None,
) -> Held:
    """Of the scores on record and the new ones, on the same rows in the same order.

    lms: asked side by side, whose intervals hold together (Bonferroni). reads: how many programs
    these rows have judged, this one included. judge: how an LM judge errs that scored both. Being
    at the target comes first: a program that has become worse, and is surely at the target all the
    same, does what it was made for. Where too many calls failed, nothing is said.
    """
    gain = corrected_gain(paired_gain(before, after, 1 - (1 - LEVEL) / lms), judge)
    scored = known(after)
    chance, covered = chance_at_least(target, scored, judge), len(scored) >= COVERAGE * len(after)
    at_target = covered and confirms(chance, reads)
    verdict: Recheck = "still at target" if at_target else "cannot tell"
    if not covered:
        return Held(verdict, gain, chance, at_target)
    if gain.low > 0:
        verdict = "better"
    elif gain.high < 0 and not at_target:
        verdict = "worse"
    return Held(verdict, gain, chance, at_target)


@dataclass(frozen=True)
class Labelled:
    """What newly labelled rows say. change: over the record, two samples of different rows.
    chance: probability that the program is at the target on rows like the new ones. worse: surely
    than the record; missed: it was at the target on record, and surely is not any more.
    """

    change: Interval
    chance: float
    worse: bool
    missed: bool


def labelled(
    target: float,
    before: Sequence[float],
    after: Sequence[float],
    reached: bool,
    judge: Confusion | None = None,
) -> Labelled:
    """reached: the record says that the program was at the target. Each of the two alarms errs in
    ERROR of the cases at most, so both together in twice that.
    """
    change = corrected_gain(mean_change(before, after), judge)
    chance = chance_at_least(target, after, judge)
    return Labelled(change, chance, change.high < 0, reached and chance <= ERROR)


def watched(
    found: Labelled | None,
    drifted: bool,
    tuned: bool,
    reached: bool,
    least: float,
    told: bool = True,
) -> Watch:
    """What is to be done with the program.

    told: there is something to tell by: a test of the rows, and of the labelled ones hardly a
    call has failed; those that do are no random ones.
    drifted: inputs or answers are of another kind than on record. reached: as in `labelled`.
    least: a loss that does not matter. Labels go before drift: a program that is surely at its
    target on drifted rows is in order.
    """
    if not told:
        return "relabel" if drifted else "cannot tell"
    if found and (found.worse or found.missed):
        return "retrain" if tuned else "re-optimize"
    if not drifted:
        return "ok"
    fine = found and (confirms(found.chance, 1) if reached else found.change.low >= -least)
    return "ok" if fine else "relabel"

"""The verdict: a pure function of what was tried and how each val row was scored. docs/verdict.md
is this rule in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from optimize.stats.intervals import Gain, Interval, paired_gain
from optimize.stats.winner import Corrected, corrected_best

Verdict = Literal[
    "reached", "improving", "plateau", "indecisive", "budget", "exhausted", "no_headroom"
]
# the kinds of lever: the baseline pulls none, weights are what comes after prompting
Family = Literal["baseline", "format", "demos", "retrieval", "instructions", "weights"]
WEIGHTS: Family = "weights"
# those that must have been tried before prompting is given up
FAMILIES: tuple[Family, ...] = ("demos", "instructions")
SURE = 0.9  # probability of being at the target from which it counts as reached
# chance of still reaching the target up to which prompting is given up; bench/verdict.py has what
# comes of it
ERROR = 0.05
COVERAGE = 0.95  # share of rows with a score below which no verdict is drawn
# of a rung's true gain before any is seen: normal mean's and half-normal spread's scale
PRIOR_MEAN, PRIOR_SPREAD = 0.05, 0.1
DRAWS = 2000
MOST_ROWS = 20  # times the val rows there are: needing more than that is no advice


@dataclass(frozen=True)
class Tried:
    """One scored program: its rung, the family of its lever, its score for each val example (None:
    missing).

    promoted: the rungs after it built on it. calls: LM calls an example takes. A race stopped early
    has fewer scores.
    """

    rung: str
    family: Family
    scores: tuple[float | None, ...]
    promoted: bool = False
    calls: float = 1.0

    @property
    def mean(self) -> float:
        known = [s for s in self.scores if s is not None]
        return math.fsum(known) / len(known) if known else -1.0

    @property
    def coverage(self) -> float:
        return sum(s is not None for s in self.scores) / len(self.scores) if self.scores else 0.0


@dataclass(frozen=True)
class History:
    """All that a verdict is drawn from. tried: baseline first, in order. rungs_left: those that
    could still be tried, those included that were skipped for want of calls.

    rung_calls: LM calls that one more rung would likely take, as the ones so far did on average.
    """

    tried: tuple[Tried, ...]
    target: float
    rungs_left: int
    budget_left: bool
    rung_calls: int = 0


@dataclass(frozen=True)
class Decision:
    """The verdict with the numbers it hangs on.

    best: the best program's corrected score. reached: probability that it is at the target. chance:
    probability that it, or what the rungs left may add to it, is. next_gain: what one more rung
    would add on average, which is often nothing. rows: val rows that would decide, where more rows
    are what it takes. lacking: which levers could not be tried, where that is why there is no
    verdict. What all this means in words is written in optimize.report.sentences.
    """

    verdict: Verdict
    best: Corrected
    reached: float
    chance: float
    next_gain: float
    rows: int | None = None
    lacking: str = ""


def promotes(gain: Interval, cheaper: bool) -> bool:
    """Whether the rungs that follow build on a challenger: it gains more than one standard error,
    or it takes fewer calls and is not surely worse.

    After the one-standard-error rule of Breiman et al. (1984): what costs more must be better by
    more than noise. It is a rule for building on, not a proof: the climb ends with the best of all
    it built on, and the score that counts is the one on test, which no choice has touched.
    """
    return gain.mean > gain.error or (cheaper and gain.high > 0)


def best_of(tried: Sequence[Tried]) -> int:
    """Which program the climb ends with: the best it built on, on a tie the one with fewer calls,
    then the earlier one.
    """
    promoted = [n for n, t in enumerate(tried) if t.promoted]
    return max(promoted, key=lambda n: (tried[n].mean, -tried[n].calls, -n))


def decide(history: History) -> Decision:
    """Is the target reached, out of reach of prompting, or not decidable on this val set."""
    tried, target, rungs_left = history.tried, history.target, history.rungs_left
    best = tried[best_of(tried)]
    corrected = corrected_best(best.scores, [t.scores for t in tried if t is not best])
    reached, chance, next_gain = outlook(_gains(tried), corrected.interval, target, rungs_left)

    def decision(verdict: Verdict, rows: int | None = None, lacking: str = "") -> Decision:
        return Decision(verdict, corrected, reached, chance, next_gain, rows, lacking)

    lacking = _lacking(tried)
    if best.coverage < COVERAGE:
        return decision("indecisive")
    if corrected.interval.mean >= target and reached >= SURE:
        return decision("reached")
    if not lacking and chance <= ERROR:
        return decision("plateau")
    if rungs_left and history.budget_left:
        return decision("improving")
    if not history.budget_left:
        return decision("budget")
    if lacking:
        return decision("exhausted", lacking=lacking)
    return decision("indecisive", rows=_rows_needed(corrected.interval, target))


def without_headroom(decision: Decision, ceilings: Sequence[Interval], target: float) -> Decision:
    """no_headroom, where the climb could not decide and everything that prompting might bring out
    stays below the target.

    A plateau stays one: that verdict says more.
    """
    undecided = decision.verdict in ("indecisive", "exhausted", "budget")
    if not undecided or not all(ceiling.high < target for ceiling in ceilings):
        return decision
    return replace(decision, verdict="no_headroom", rows=None)


def _lacking(tried: Sequence[Tried]) -> str:
    """What must still be tried before prompting is given up: two families of levers, one of them by
    two optimizers.
    """
    rungs = {(t.family, t.rung) for t in tried if t.coverage >= COVERAGE}
    if missing := [family for family in FAMILIES if family not in {f for f, _ in rungs}]:
        return f"none of {', '.join(missing)} could be scored"
    if all(len([r for f, r in rungs if f == family]) < 2 for family in FAMILIES):
        return f"neither {' nor '.join(FAMILIES)} were tried by a second optimizer"
    return ""


def _gains(tried: Sequence[Tried]) -> list[Gain]:
    """Each attempt's paired gain over the incumbent of its time."""
    incumbent, gains = tried[0], []
    for attempt in tried[1:]:
        if attempt.coverage >= COVERAGE:
            gains.append(paired_gain(incumbent.scores, attempt.scores))
        if attempt.promoted:
            incumbent = attempt
    return gains


def outlook(
    gains: Sequence[Interval], best: Interval, target: float, rungs: int
) -> tuple[float, float, float]:
    """(probability that the best program is at the target, that it is after so many rungs more,
    mean addition of one rung).

    True gains are taken as draws from one normal distribution; its mean and spread are inferred
    from the gains so far with their standard errors, and the next gains predicted from it: the
    predictive distribution of a random-effects meta-analysis (Higgins et al., 2009), by a grid over
    mean and spread. A rung that loses adds nothing.
    """
    import numpy as np
    from scipy.stats import norm

    drawn = max(1, rungs)  # also where none is left it is worth knowing what one would add
    mean, spread = (
        axis.ravel()
        for axis in np.meshgrid(np.linspace(-0.3, 0.6, 46), np.linspace(0.005, 0.6, 40))
    )
    weight = norm.logpdf(mean, 0, PRIOR_MEAN) + norm.logpdf(spread, 0, PRIOR_SPREAD)
    for gain in gains:
        weight += norm.logpdf(gain.mean, mean, np.sqrt(spread**2 + gain.error**2))
    share = np.exp(weight - weight.max())
    rng = np.random.default_rng(0)
    picked = rng.choice(len(share), DRAWS, p=share / share.sum())
    added = np.clip(
        mean[picked, None] + spread[picked, None] * rng.standard_normal((DRAWS, drawn)), 0, None
    )
    error = max(best.error, 1e-9)
    start = best.mean + error * rng.standard_normal(DRAWS)
    reached = float(norm.sf(target, best.mean, error))
    return (
        reached,
        float((start + added[:, :rungs].sum(axis=1) >= target).mean()),
        float(added[:, 0].mean()),
    )


def _rows_needed(best: Interval, target: float) -> int | None:
    """Val rows on which a score as far from the target as this one would be told from it; None
    where no advice helps.
    """
    from scipy.stats import norm

    far, sure = (
        abs(best.mean - target),
        float(norm.ppf(1 - ERROR / 2 if best.mean < target else SURE)),
    )
    rows = math.ceil(best.n * (sure * best.error / far) ** 2) if far else math.inf
    return int(rows) if best.n < rows <= MOST_ROWS * best.n else None

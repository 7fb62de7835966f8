"""The verdict: a pure function of what was tried and how each judging row was scored.
docs/verdict.md is this rule in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from optimize.stats.intervals import POWER, Interval, known, mean_interval, paired_gain
from optimize.stats.judge import Confusion, chance_at_least, corrected, errors
from optimize.stats.reads import spent
from optimize.stats.winner import Corrected, corrected_best

Verdict = Literal[
    "reached",
    "unconfirmed",
    "improving",
    "plateau",
    "degenerate",
    "indecisive",
    "budget",
    "exhausted",
    "no_headroom",
]
# the kinds of lever: the baseline pulls none, weights are what comes after prompting
Family = Literal[
    "baseline",
    "format",
    "guide",
    "demos",
    "retrieval",
    "reasoning",
    "instructions",
    "votes",
    "weights",
]
WEIGHTS: Family = "weights"
AGAIN = "_again"  # follows a lever's name where it came again
# those that must have been tried before prompting is given up
FAMILIES: tuple[Family, ...] = ("demos", "instructions")
SURE = 0.9  # probability of being at the target from which val says that it is reached
CONFIRMED = 0.8  # the same for the test rows, which no choice has touched, when first read
# probability of being at the target up to which prompting is given up; bench/verdict.py has what
# comes of it
ERROR = 0.025
COVERAGE = 0.95  # share of rows with a score below which no verdict is drawn
SAME = 0.9  # share of equal answers from which a program is taken not to read its input
DEARER = 0.9  # of the incumbent's calls: a challenger that takes no more is cheaper
MOST_ROWS = 20  # times the rows there are: needing more than that is no advice


@dataclass(frozen=True)
class Tried:
    """One scored program: its rung, the family of its lever, its score for each judging row (None:
    missing).

    Val rows come first; the last few programs are asked on the judging rows beyond them as well. A
    race stopped early has fewer. promoted: the rungs after it built on it. calls: LM calls an
    example takes. same: share of its answers that are equal to its commonest one. unread: rows
    without a score since they are longer than the LM reads; they count as not there.
    """

    rung: str
    family: Family
    scores: tuple[float | None, ...]
    promoted: bool = False
    calls: float = 1.0
    same: float = 0.0
    unread: int = 0

    @property
    def coverage(self) -> float:
        return len(known(self.scores)) / ((len(self.scores) - self.unread) or 1)

    def mean(self, rows: int | None = None) -> float:
        """Over the first so many rows, or all; -1 where none of them has a score."""
        found = known(self.scores[:rows])
        return math.fsum(found) / len(found) if found else -1.0


@dataclass(frozen=True)
class History:
    """All that a verdict is drawn from. tried: baseline first, in order. val: rows that every
    program was raced on. rungs_left: those that could still be tried, those included that were
    skipped for want of calls.

    rung_calls: LM calls that one more rung would likely take, as the ones so far did on average.
    rivals: val scores of the programs of earlier runs on these rows, from which the best was chosen
    as well. constant: the score on val of the constant answer that scores best. varied: the right
    answers are not nearly all the same one. rows: content hashes of the val rows. judge: how an LM
    judge errs that gave the scores; they are kept as it gave them.
    """

    tried: tuple[Tried, ...]
    target: float
    val: int
    rungs_left: int
    budget_left: bool
    rung_calls: int = 0
    rivals: tuple[tuple[float | None, ...], ...] = ()
    constant: float = -1.0
    varied: bool = True
    rows: tuple[str, ...] = ()
    judge: Confusion | None = None


@dataclass(frozen=True)
class Decision:
    """The verdict with the numbers it hangs on.

    best: the best program's score, corrected for having been chosen and for its judge. reached:
    probability that it is at the target. chance: the highest such probability of any program that
    may as well be the best. rows: judging rows that would decide, where more rows are what it
    takes. lacking: which levers could not be tried, where that is why there is no verdict. What all
    this means in words is written in optimize.report.verdicts.
    """

    verdict: Verdict
    best: Corrected
    reached: float
    chance: float
    rows: int | None = None
    lacking: str = ""


def promotes(gain: Interval, cheaper: bool) -> bool:
    """Whether the rungs that follow build on a challenger: it gains more than one standard error,
    or it takes at least a tenth fewer calls and does not lose more than half of one.

    After the one-standard-error rule of Breiman et al. (1984): what costs more must be better by
    more than noise. It is a rule for building on, not a proof.
    """
    return gain.mean > errors_asked(cheaper) * gain.error


def errors_asked(cheaper: bool) -> float:
    """How many standard errors a challenger must gain to be promoted."""
    return -0.5 if cheaper else 1.0


def is_cheaper(calls: float, incumbent: float) -> bool:
    """Whether a challenger that takes so many LM calls an example costs clearly less."""
    return calls <= DEARER * incumbent


def contenders(tried: Sequence[Tried], val: int) -> list[int]:
    """The programs that may be the best one, the one to end with first: those scored on all val
    rows that are not surely worse, pair by pair, than the best of them.

    The best has the highest mean over the rows that all contenders answered; on a tie it is the
    one with fewer calls, then the earlier one. One that takes clearly more calls gives way to
    another as `promotes` would have it.
    """
    whole = [n for n, t in enumerate(tried) if len(t.scores) >= val and t.coverage >= COVERAGE]
    whole = whole or [0]
    rows = val
    for _ in range(2):  # by val alone first, then by all rows that those left answered
        whole.sort(key=lambda n: (-tried[n].mean(rows), tried[n].calls, n))
        leader = tried[whole[0]]
        whole = [n for n in whole if tried[n] is leader or not _worse(tried[n], leader)]
        rows = min(len(tried[n].scores) for n in whole)
    first = whole[0]
    for n in whole[1:]:
        if _gives_way(tried[first], tried[n]):
            first = n
    return [first, *(n for n in whole if n != first)]


def _gives_way(leader: Tried, other: Tried) -> bool:
    """Whether the other one costs clearly less and is about as good: what was built on must lose
    no more than half a standard error to be given up, what was not must have gained one.
    """
    if not is_cheaper(other.calls, leader.calls):
        return False
    if leader.promoted:
        return promotes(paired_gain(leader.scores, other.scores), True)
    return not promotes(paired_gain(other.scores, leader.scores), False)


def _worse(program: Tried, leader: Tried) -> bool:
    return paired_gain(leader.scores, program.scores).high < 0


def decide(history: History) -> Decision:
    """Is the target reached, out of reach of prompting, or not decidable on these rows."""
    tried, target = history.tried, history.target
    close = contenders(tried, history.val)
    best = tried[close[0]]
    others = [t.scores for t in tried if t is not best]
    here = {t.scores[: history.val] for t in tried}  # a run again finds its own programs
    rivals = [scores for scores in history.rivals if scores not in here]
    judge = history.judge
    raw = corrected_best(best.scores, others, history.val)
    # a better one of an earlier run (another LM's, a teacher's) would be chosen in every draw, and
    # the luck of this climb's own choice would not show
    if rivals:
        every = corrected_best(best.scores, [*others, *rivals], history.val)
        raw = replace(max(every, raw, key=lambda found: found.optimism), k=every.k)
    optimism = raw.optimism / judge.youden.mean if judge else raw.optimism
    score = Corrected(corrected(raw.interval, judge), optimism, raw.k)
    reached = chance_at_least(target, known(best.scores), judge, -raw.optimism)
    chances = [
        (chance_at_least(target, known(tried[n].scores), judge), tried[n].scores) for n in close[1:]
    ]
    chance, hardest = max([(reached, best.scores), *chances], key=lambda found: found[0])

    def decision(verdict: Verdict, rows: int | None = None, lacking: str = "") -> Decision:
        return Decision(verdict, score, reached, chance, rows, lacking)

    if best.coverage < COVERAGE:
        return decision("indecisive")
    if score.interval.mean >= target and reached >= SURE:
        return decision("reached")
    # the next lever may be the one that helps, whatever those before it did
    if history.rungs_left:
        return decision("improving" if history.budget_left else "budget")
    if lacking := _lacking(tried):
        return decision("exhausted", lacking=lacking)
    if chance <= ERROR:
        return decision("degenerate" if is_degenerate(best, history) else "plateau")
    unsure = raw.interval if hardest is best.scores else mean_interval(known(hardest))
    # of the program that keeps the verdict open
    below = corrected(unsure, judge).mean < target
    rows = _rows_needed(unsure, judge, target, 1 - ERROR if below else SURE)
    # as many more as that program needs, beside those that the best one has answered
    return decision("indecisive", rows=rows and rows + raw.interval.n - unsure.n)


def is_degenerate(best: Tried, history: History) -> bool:
    """Whether the best program does not read its input: it answers nearly every row the same, or
    scores no better than a constant answer.
    """
    if not history.varied:
        return False
    if history.constant < 0:
        return best.same >= SAME
    return best.mean(history.val) <= history.constant


def confirmed(decision: Decision, on_test: float | None, reads: int) -> Decision:
    """`unconfirmed` in place of `reached` where the test rows do not bear it out.

    on_test: probability by them alone that the program is at the target; None where too many of
    their calls failed to say. reads: how often they have been read, this time included.
    """
    known = on_test is not None and confirms(on_test, reads)
    if decision.verdict != "reached" or known:
        return decision
    return replace(decision, verdict="unconfirmed")


def confirms(on_test: float, reads: int) -> bool:
    """Whether test rows bear out that the target is reached: at the first reading with a
    probability of CONFIRMED; every further one must be surer (`spent`).
    """
    return on_test >= asked_of_test(reads)


def rows_to_confirm(
    test: Interval, judge: Confusion | None, target: float, reads: int
) -> int | None:
    """Test rows that would tell a program with such a score on them, as its judge gave it, from the
    target, as surely as `confirms` asks.
    """
    return _rows_needed(test, judge, target, asked_of_test(reads))


def asked_of_test(reads: int) -> float:
    """The probability that test rows must give, when they are read for that many programs."""
    return 1 - (1 - CONFIRMED) * spent(reads)


def contradicts_plateau(on_test: float) -> bool:
    """Whether test rows do not bear out that the program stays below the target."""
    return 1 - on_test < CONFIRMED


def without_headroom(decision: Decision, ceilings: Sequence[float], target: float) -> Decision:
    """no_headroom, where every lever was tried, the rows cannot decide, and all that prompting
    might bring out stays below the target.

    ceilings: upper ends of its intervals. A plateau stays one: that verdict says more.
    """
    if decision.verdict != "indecisive" or not all(ceiling < target for ceiling in ceilings):
        return decision
    return replace(decision, verdict="no_headroom", rows=None)


def _lacking(tried: Sequence[Tried]) -> str:
    """What must still be tried before prompting is given up: two families of levers, one of them by
    two optimizers.
    """
    # a lever that came again is no second one
    rungs = {(t.family, t.rung.removesuffix(AGAIN)) for t in tried if t.coverage >= COVERAGE}
    if missing := [family for family in FAMILIES if family not in {f for f, _ in rungs}]:
        return f"none of {', '.join(missing)} could be scored"
    if all(len([r for f, r in rungs if f == family]) < 2 for family in FAMILIES):
        return f"neither {' nor '.join(FAMILIES)} were tried by a second optimizer"
    return ""


def _rows_needed(raw: Interval, judge: Confusion | None, target: float, sure: float) -> int | None:
    """Rows on which a score as far from the target as this one, once corrected, would be told from
    it so surely in four cases of five; None where no advice helps.
    """
    from scipy.stats import norm

    far = abs(corrected(raw, judge).mean - target)
    of_rows, of_judge = errors(raw, judge)
    room = (far / float(norm.ppf(sure) + norm.ppf(POWER))) ** 2 - of_judge**2
    rows = math.ceil(raw.n * of_rows**2 / room) if room > 0 else math.inf
    return int(rows) if raw.n < rows <= MOST_ROWS * raw.n else None

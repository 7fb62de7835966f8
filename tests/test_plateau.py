"""Every verdict of the stopping rule, on scores small enough to check by hand."""

from __future__ import annotations

import pytest

from optimize.plateau import FAMILIES, Decision, Tried, Verdict, decide, promotes
from optimize.stats import Interval

Scores = tuple[float | None, ...]


def scores(right: int, n: int) -> Scores:
    return (1.0,) * right + (0.0,) * (n - right)


HALF = scores(50, 100)  # Wilson: 0.404 … 0.596
BOTH = [Tried("demos", HALF), Tried("instructions", HALF)]  # gain 0 ± 0.027
DEMOS, INSTRUCTIONS = BOTH[:1], BOTH[1:]


def verdict(incumbent: Scores, tried: list[Tried], target: float = 0.9, rungs_left: bool = True, budget_left: bool = True) -> Decision:
    return decide(Tried("demos", incumbent), tried, target, rungs_left=rungs_left, budget_left=budget_left)


@pytest.mark.parametrize(
    ("incumbent", "tried", "target", "rungs_left", "budget_left", "expected"),
    [
        (HALF, [], 0.5, True, True, "reached"),
        (HALF, BOTH, 0.5, False, False, "reached"),
        (HALF, BOTH, 0.51, True, True, "improving"),  # the incumbent's own interval still holds it
        (HALF, BOTH, 0.6, True, True, "plateau"),
        (HALF, BOTH, 0.6, False, True, "plateau"),
        (HALF, BOTH, 0.6, True, False, "plateau"),
        (HALF, [], 0.9, True, True, "improving"),
        (HALF, DEMOS, 0.9, True, True, "improving"),
        (HALF, DEMOS, 0.9, True, False, "budget"),
        (HALF, DEMOS, 0.9, False, False, "budget"),
        (HALF, BOTH, 0.55, False, False, "budget"),
        (HALF, DEMOS, 0.9, False, True, "exhausted"),
        (HALF, INSTRUCTIONS, 0.9, False, True, "exhausted"),
        (HALF, BOTH, 0.55, False, True, "indecisive"),
        (scores(5, 10), [Tried(f, scores(5, 10)) for f in FAMILIES], 0.7, False, True, "indecisive"),  # as above, fewer rows
    ],
)
def test_verdicts(incumbent: Scores, tried: list[Tried], target: float, rungs_left: bool, budget_left: bool, expected: Verdict) -> None:
    assert verdict(incumbent, tried, target, rungs_left, budget_left).verdict == expected


@pytest.mark.parametrize("rungs_left", [True, False])
@pytest.mark.parametrize("budget_left", [True, False])
@pytest.mark.parametrize("family", ["baseline", "format", "retrieval", "demos", "instructions"])
def test_one_family_is_never_enough_for_a_plateau(family: str, rungs_left: bool, budget_left: bool) -> None:
    tried = [Tried("baseline", HALF), *[Tried(family, HALF)] * 5]
    assert verdict(scores(0, 100), tried, 1.0, rungs_left, budget_left).verdict != "plateau"


@pytest.mark.parametrize("rungs_left", [True, False])
def test_no_plateau_while_an_attempts_gain_may_reach_the_target(rungs_left: bool) -> None:
    wild = (0.0,) * 50 + (1.0,) * 10 + (0.0,) * 40  # loses 50 of the incumbent's, wins 10: gain -0.4, up to -0.27
    risky = (1.0,) * 30 + (0.0,) * 20 + (1.0,) * 20 + (0.0,) * 30  # wins 20, loses 20: gain 0, up to +0.125
    assert verdict(HALF, [*BOTH, Tried("demos", wild)], 0.61, rungs_left).verdict == "plateau"
    assert verdict(HALF, [*BOTH, Tried("demos", risky)], 0.61, rungs_left).verdict == ("improving" if rungs_left else "indecisive")


def test_a_stopped_race_is_paired_with_the_incumbents_first_rows() -> None:
    assert verdict(HALF, [*BOTH, Tried("demos", (0.0,) * 40)], 0.6).verdict == "plateau"


def test_missing_scores_are_not_zeros() -> None:
    some: Scores = (1.0,) * 9 + (0.0,) + (None,) * 90
    assert verdict(some, [], 0.9).verdict == "reached"  # 9 of the 10 known
    tried = [Tried(family, some) for family in FAMILIES]
    assert verdict(some, tried, 0.95, rungs_left=False).verdict == "indecisive"  # ten rows tell little; ninety zeros would


def test_the_reason_tells_the_numbers() -> None:
    found = verdict(HALF, BOTH, 0.6)
    assert all(text in found.reason for text in ("0.500", "100 val rows", "0.596", "0.6"))
    assert "instructions" in verdict(HALF, DEMOS, 0.9, rungs_left=False).reason


@pytest.mark.parametrize(
    ("gain", "cheaper", "expected"),
    [
        (Interval(0.05, -0.03, 0.13, 50), False, True),  # more than one standard error (0.041)
        (Interval(0.03, -0.05, 0.11, 50), False, False),
        (Interval(-0.03, -0.11, 0.05, 50), True, True),  # fewer calls, and not surely worse
        (Interval(-0.09, -0.17, -0.01, 50), True, False),
    ],
)
def test_what_the_next_rungs_build_on(gain: Interval, cheaper: bool, expected: bool) -> None:
    assert promotes(gain, cheaper) is expected

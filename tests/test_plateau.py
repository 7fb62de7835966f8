"""The stopping rule: every verdict, on scores small enough to check by hand. bench/verdict.py has
its error rates.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from optimize.climb.verdict import (
    ERROR,
    FAMILIES,
    SURE,
    Decision,
    History,
    Tried,
    best_of,
    decide,
    outlook,
    promotes,
    without_headroom,
)
from optimize.report.record import VerdictRecord
from optimize.report.sentences import verdict_sentences
from optimize.stats.intervals import Interval, wilson

Scores = tuple[float | None, ...]


def scores(right: int, n: int) -> Scores:
    """Spread evenly, so that two of them differ on few rows."""
    return tuple(
        float(math.floor((i + 1) * right / n) > math.floor(i * right / n)) for i in range(n)
    )


def tried(*found: tuple[str, str, Scores], baseline: Scores | None = None) -> tuple[Tried, ...]:
    first = Tried("zero_shot", "baseline", baseline or found[0][2], promoted=True)
    return (first, *(Tried(rung, family, s) for rung, family, s in found))


HALF = scores(50, 100)
FLAT = tried(
    ("demo_search", "demos", HALF),
    ("nearest_demos", "demos", HALF),
    ("mipro", "instructions", HALF),
)


def verdict(
    history: tuple[Tried, ...], target: float, rungs_left: int = 0, budget_left: bool = True
) -> Decision:
    return decide(History(history, target, rungs_left, budget_left, rung_calls=120))


@pytest.mark.parametrize(
    ("history", "target", "rungs_left", "budget_left", "expected"),
    [
        (FLAT[:1], 0.4, 5, True, "reached"),
        (FLAT, 0.4, 0, False, "reached"),
        (FLAT[:1], 0.5, 5, True, "improving"),  # at the target, but as likely as not above it
        (FLAT, 0.9, 3, True, "plateau"),
        (FLAT, 0.9, 0, True, "plateau"),
        (FLAT, 0.9, 0, False, "plateau"),
        (FLAT[:1], 0.9, 3, True, "improving"),
        (FLAT[:3], 0.9, 3, True, "improving"),  # no instructions yet
        (FLAT[:3], 0.9, 3, False, "budget"),
        (FLAT[:3], 0.9, 0, True, "exhausted"),
        # two families, but neither by a second optimizer
        ((*FLAT[:2], FLAT[3]), 0.9, 0, True, "exhausted"),
        (FLAT, 0.53, 0, True, "indecisive"),
        (FLAT, 0.53, 0, False, "budget"),
        (FLAT, 0.49, 0, True, "indecisive"),  # a little above the target
    ],
)
def test_verdicts(
    history: tuple[Tried, ...], target: float, rungs_left: int, budget_left: bool, expected: str
) -> None:
    assert verdict(history, target, rungs_left, budget_left).verdict == expected


@pytest.mark.parametrize("family", ["baseline", "format", "retrieval", *FAMILIES])
def test_one_family_is_never_enough_for_a_plateau(family: str) -> None:
    assert (
        verdict(tried(*[(f"rung {n}", family, HALF) for n in range(6)]), 1.0).verdict == "exhausted"
    )


def test_large_gains_so_far_keep_prompting_alive() -> None:
    """The same best score; but one history rose by steps of ten points, and the next step may reach
    the target.
    """
    steps = [scores(n, 100) for n in (20, 30, 40, 50)]
    rising = tuple(
        Tried(rung, family, s, promoted=True)
        for rung, family, s in zip(
            ("zero_shot", "a", "b", "c"),
            ("baseline", "demos", "demos", "instructions"),
            steps,
            strict=True,
        )
    )
    assert (
        verdict(rising, 0.65, 1).verdict == "improving"
        and verdict(rising, 0.65, 1).next_gain > 0.06
    )
    assert verdict(FLAT, 0.65, 1).verdict == "plateau" and verdict(FLAT, 0.65, 1).next_gain < 0.03
    assert verdict(rising, 0.65, 1).chance > ERROR >= verdict(FLAT, 0.65, 1).chance


def test_where_no_rung_is_left_the_score_alone_tells() -> None:
    """One large gain says that a further lever may bring another, but there is none to try and more
    rows would not bring it.
    """
    leap = [
        Tried("zero_shot", "baseline", scores(20, 100), True),
        Tried("nearest_demos", "demos", scores(60, 100), True),
    ]
    flat = [
        Tried("mipro", "instructions", scores(60, 100)),
        Tried("gepa", "instructions", scores(60, 100)),
    ]
    found, one_left = verdict((*leap, *flat), 0.8), verdict((*leap, *flat), 0.8, 1)
    assert found.verdict == "plateau" and found.chance == pytest.approx(found.reached, abs=0.01)
    assert one_left.verdict == "improving" and one_left.next_gain == found.next_gain > 0.05
    assert verdict((*leap, *flat), 0.8, 1, budget_left=False).verdict == "budget", (
        "it was skipped for want of calls"
    )


def test_more_rungs_left_leave_a_higher_chance() -> None:
    assert verdict(FLAT, 0.6, 8).chance > verdict(FLAT, 0.6, 1).chance


def test_a_score_short_of_certainty_does_not_count_as_reached() -> None:
    n = next(n for n in range(50, 100) if verdict(FLAT[:1], n / 100 - 0.12).reached >= SURE)
    assert n >= 50
    assert verdict(tried(baseline=scores(8, 10)), 0.7).verdict != "reached", (
        "8 of 10 is no proof of 0.7"
    )
    assert verdict(tried(baseline=scores(160, 200)), 0.7).verdict == "reached"


def test_the_best_of_many_is_corrected_before_it_counts() -> None:
    """Twelve coin-tossing programs on forty rows: the luckiest seems to be at 0.6."""
    import numpy as np

    rng = np.random.default_rng(1)
    tosses = [tuple(map(float, rng.integers(0, 2, 40))) for _ in range(12)]
    history = tuple(Tried(f"r{n}", "demos", s, promoted=True) for n, s in enumerate(tosses))
    best = history[best_of(history)]
    found = verdict(history, 0.5)
    assert best.mean >= 0.6 and found.verdict != "reached"
    assert found.best.interval.mean < best.mean - 0.05 and found.best.k == 12
    assert verdict((replace(best, promoted=True),), 0.5).reached > found.reached


def test_a_stopped_race_counts_as_tried_but_not_as_chosen_from() -> None:
    cut = tuple(replace(t, scores=t.scores[:36]) if t.rung == "mipro" else t for t in FLAT)
    found = verdict(cut, 0.9)
    assert found.verdict == "plateau" and found.best.k == 3


def test_missing_scores_are_not_zeros_and_below_95_percent_coverage_nothing_is_said() -> None:
    few: Scores = tuple(None if n % 25 == 0 else s for n, s in enumerate(scores(90, 100)))
    assert verdict(tried(baseline=few), 0.8).verdict == "reached"
    many: Scores = tuple(None if n % 10 == 0 else s for n, s in enumerate(scores(90, 100)))
    many_tried = tried(baseline=many)
    found = verdict(many_tried, 0.8)
    assert found.verdict == "indecisive" and "90% of the val rows" in words(many_tried, 0.8)
    history = tuple(replace(t, scores=many) if t.rung == "mipro" else t for t in FLAT)
    assert verdict(history, 0.9).verdict == "exhausted", "a rung with too few scores was not tried"


def test_an_indecisive_verdict_says_how_many_rows_would_tell() -> None:
    found = verdict(FLAT, 0.57)
    assert (
        found.verdict == "indecisive"
        and found.rows
        and 100 < found.rows < 800
        and str(found.rows) in words(FLAT, 0.57)
    )
    assert (
        verdict(
            tuple(replace(t, scores=scores(50 * found.rows // 100, found.rows)) for t in FLAT), 0.57
        ).chance
        < 0.1
    )
    assert verdict(FLAT, 0.5).rows is None, "at the target's very edge no number of rows tells"


def words(history: tuple[Tried, ...], target: float, left: int = 0, budget: bool = True) -> str:
    """What a person is told of the verdict on this history."""
    found = History(history, target, left, budget, rung_calls=120)
    decision = decide(found)
    return verdict_sentences(decision.verdict, target, VerdictRecord.of(decision, found))


def test_the_words_tell_the_numbers() -> None:
    said = words(FLAT, 0.9)
    assert all(text in said for text in ("0.50 [0.40, 0.60]", "100 val rows", "0.9", "below 0.1 %"))
    assert "instructions" in words(FLAT[:3], 0.9)
    assert "120 calls" in words(FLAT[:3], 0.9, 2, budget=False)


def test_a_score_above_the_target_is_not_called_below_it() -> None:
    assert verdict(FLAT, 0.49, 0, budget_left=False).verdict == "budget"
    said = words(FLAT, 0.49, 0, budget=False)
    assert "at the target 0.49, but not surely" in said and "below the target" not in said
    assert "below the target 0.53" in words(FLAT, 0.53, 0, budget=False)


def test_no_headroom_only_where_the_climb_could_not_tell() -> None:
    low, high = [wilson(0.3, 100)], [wilson(0.85, 100)]
    undecided, plateau = verdict(FLAT, 0.57), verdict(FLAT, 0.9)
    assert without_headroom(undecided, low, 0.57).verdict == "no_headroom"
    assert (
        without_headroom(undecided, high, 0.57) is undecided
        and without_headroom(plateau, low, 0.9) is plateau
    )


def test_the_outlook_without_any_gain_seen_is_the_prior() -> None:
    reached, chance, gain = outlook([], Interval(0.5, 0.4, 0.6, 100), 0.55, 1)
    assert 0.1 < reached < 0.2 < chance < 0.5 and 0.02 < gain < 0.06


def test_a_history_survives_json() -> None:
    """`optimize verdict` draws the verdict from this text alone."""
    kind = TypeAdapter(History)
    history = History((replace(FLAT[0], scores=(1.0, None, 0.25)), *FLAT[1:]), 0.9, 2, True, 40)
    again = kind.validate_json(kind.dump_json(history))
    assert again == history and decide(again) == decide(history)


@pytest.mark.parametrize(
    ("gain", "cheaper", "expected"),
    [
        (Interval(0.05, -0.03, 0.13, 50), False, True),  # more than one standard error (0.041)
        (Interval(0.03, -0.05, 0.11, 50), False, False),
        (Interval(-0.03, -0.11, 0.05, 50), True, True),  # fewer calls, and not surely worse
        (Interval(-0.09, -0.17, -0.01, 50), True, False),
    ],
)
def test_promotion(gain: Interval, cheaper: bool, expected: bool) -> None:
    assert promotes(gain, cheaper) is expected

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
    confirmed,
    contenders,
    contradicts_plateau,
    decide,
    is_cheaper,
    promotes,
    rows_to_confirm,
    without_headroom,
)
from optimize.report.record import VerdictRecord
from optimize.report.verdicts import verdict_sentences
from optimize.stats.intervals import Interval, mean_interval, wilson

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
    return decide(History(history, target, val(history), rungs_left, budget_left, rung_calls=120))


def val(history: tuple[Tried, ...]) -> int:
    """All were raced on the same rows, unless one was stopped."""
    return max(min(len(t.scores), 100) for t in history) if history else 0


@pytest.mark.parametrize(
    ("history", "target", "rungs_left", "budget_left", "expected"),
    [
        (FLAT[:1], 0.4, 5, True, "reached"),
        (FLAT, 0.4, 0, False, "reached"),
        (FLAT[:1], 0.5, 5, True, "improving"),  # at the target, but as likely as not above it
        (FLAT, 0.9, 3, True, "improving"),  # however far below: the next lever may be the one
        (FLAT, 0.9, 1, False, "budget"),  # skipped for want of calls counts as left
        (FLAT, 0.9, 0, True, "plateau"),
        (FLAT, 0.9, 0, False, "plateau"),
        (FLAT[:3], 0.9, 0, True, "exhausted"),  # no instructions
        # two families, but neither by a second optimizer
        ((*FLAT[:2], FLAT[3]), 0.9, 0, True, "exhausted"),
        (FLAT, 0.53, 0, True, "indecisive"),
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


def test_programs_that_the_rows_cannot_tell_apart_are_all_kept() -> None:
    """55 and 50 of 100 are the same for all these rows show; 20 is surely worse. The best of them
    is the cheaper one where they score alike.
    """
    some = tried(
        ("demo_search", "demos", scores(55, 100)),
        ("nearest_demos", "demos", HALF),
        ("mipro", "instructions", scores(20, 100)),
        baseline=scores(10, 100),
    )
    assert contenders(some, 100) == [1, 2]
    alike = (some[0], replace(some[2], calls=2.0), some[2])
    assert contenders(alike, 100)[0] == 2
    stopped = replace(some[1], scores=some[1].scores[:36])
    assert contenders((some[0], stopped, some[2]), 100) == [2]


def test_more_rows_for_some_choose_among_all_that_answered_them() -> None:
    """On the first 40 rows one is ahead; on 80 more the other, and it is what counts."""
    first, more = scores(20, 40), scores(22, 40)
    one = Tried("a", "demos", more + scores(20, 80))
    other = Tried("b", "demos", first + scores(60, 80))
    assert contenders((replace(one, scores=more), replace(other, scores=first)), 40) == [0, 1]
    assert contenders((one, other), 40)[0] == 1


def test_a_close_program_that_may_be_at_the_target_keeps_a_plateau_from_being_said() -> None:
    """The best scores 0.50 on 400 rows and is surely below 0.6; another one, as good for all that
    its 100 rows show, is not.
    """
    surely = replace(FLAT[1], scores=scores(200, 400))
    unsure = replace(FLAT[2], scores=tuple(reversed(scores(56, 100))))
    found = verdict((surely, unsure, FLAT[3]), 0.6)
    assert found.chance > ERROR and found.verdict == "indecisive"


@pytest.mark.parametrize(
    ("same", "constant", "varied", "expected"),
    [
        (0.2, 0.3, True, "plateau"),
        (0.95, -1.0, True, "degenerate"),  # one answer to all rows
        (0.2, 0.5, True, "degenerate"),  # no better than one answer to all rows
        (0.95, 0.3, True, "plateau"),  # most rows have one label, and it tells the others
        (0.95, 0.5, False, "plateau"),  # nearly all rows have the same right answer
    ],
)
def test_a_program_that_does_not_read_its_input_proves_nothing(
    same: float, constant: float, varied: bool, expected: str
) -> None:
    history = tuple(replace(t, same=same) for t in FLAT)
    found = History(history, 0.9, 100, 0, True, constant=constant, varied=varied)
    assert decide(found).verdict == expected
    if expected == "degenerate":
        said = verdict_sentences("degenerate", 0.9, VerdictRecord.of(decide(found), found))
        assert "proves nothing" in said and ("95%" in said or "0.50" in said)


@pytest.mark.parametrize(
    ("on_test", "reads", "expected"),
    [
        (0.85, 1, "reached"),
        (0.75, 1, "unconfirmed"),
        (0.85, 2, "unconfirmed"),
        (0.95, 3, "unconfirmed"),
        (0.98, 3, "reached"),
        (None, 1, "unconfirmed"),
    ],
)
def test_the_test_rows_must_not_speak_against_it(
    on_test: float | None, reads: int, expected: str
) -> None:
    reached = verdict(FLAT, 0.4)
    assert confirmed(reached, on_test, reads).verdict == expected
    plateau = verdict(FLAT, 0.9)
    assert confirmed(plateau, on_test, reads) is plateau
    assert contradicts_plateau(0.3) and not contradicts_plateau(0.1)


def test_programs_of_earlier_runs_are_rivals_of_the_best() -> None:
    import numpy as np

    rng = np.random.default_rng(2)
    tosses = tuple(tuple(map(float, rng.integers(0, 2, 40))) for _ in range(20))
    lucky = max(tosses, key=sum)
    alone = History((Tried("a", "demos", lucky, True),), 0.5, 40, 0, True)
    known = decide(replace(alone, rivals=tosses))
    assert known.best.k == 20 and known.best.optimism > 0.05 and decide(alone).best.optimism == 0


def test_a_better_program_of_an_earlier_run_does_not_switch_the_correction_off() -> None:
    """Another LM's, or one with a teacher: it was not passed over by luck."""
    import numpy as np

    rng = np.random.default_rng(2)
    tosses = [tuple(map(float, rng.integers(0, 2, 40))) for _ in range(12)]
    history = tuple(Tried(f"r{n}", "demos", s, promoted=True) for n, s in enumerate(tosses))
    plain = decide(History(history, 0.5, 40, 0, True))
    better = decide(History(history, 0.5, 40, 0, True, rivals=((1.0,) * 40,)))
    assert plain.best.optimism > 0.03 and better.best == replace(plain.best, k=plain.best.k + 1)
    assert better.reached == plain.reached


def test_a_dearer_program_is_kept_for_more_than_noise() -> None:
    """Votes win one row of 40 and take five calls an answer."""
    near = Tried("nearest_demos", "demos", scores(30, 40), promoted=True)
    votes = Tried("votes", "votes", scores(31, 40), calls=5.0)
    assert contenders((near, votes), 40) == [0, 1], "what was not built on"
    assert contenders((near, replace(votes, promoted=True)), 40) == [0, 1], "nor what was"
    assert contenders((near, replace(votes, calls=1.0)), 40) == [1, 0], "as dear: the better one"
    surely = replace(votes, scores=scores(38, 40), promoted=True)
    assert contenders((near, surely), 40)[0] == 1


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
    best = history[contenders(history, 40)[0]]
    found = verdict(history, 0.5)
    assert best.mean() >= 0.6 and found.verdict != "reached"
    assert found.best.interval.mean < best.mean() - 0.05 and found.best.k == 12
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
    found = History(history, target, val(history), left, budget, rung_calls=120)
    decision = decide(found)
    return verdict_sentences(decision.verdict, target, VerdictRecord.of(decision, found))


def test_the_words_tell_the_numbers() -> None:
    said = words(FLAT, 0.9)
    assert all(text in said for text in ("0.50 [0.40, 0.60]", "100 rows", "0.9", "below 0.1 %"))
    assert "instructions" in words(FLAT[:3], 0.9)
    assert "2 levers had too few calls, or none." in words(FLAT[:3], 0.9, 2, budget=False)


def test_a_score_above_the_target_is_not_called_below_it() -> None:
    assert verdict(FLAT, 0.49, 1, budget_left=False).verdict == "budget"
    said = words(FLAT, 0.49, 1, budget=False)
    assert "at the target 0.49, but not surely" in said and "below the target" not in said
    assert "below the target 0.53" in words(FLAT, 0.53, 1, budget=False)


def test_no_headroom_only_where_the_climb_could_not_tell() -> None:
    low, high = [wilson(0.3, 100).high], [wilson(0.85, 100).high]
    undecided, plateau = verdict(FLAT, 0.57), verdict(FLAT, 0.9)
    assert without_headroom(undecided, low, 0.57).verdict == "no_headroom"
    assert (
        without_headroom(undecided, high, 0.57) is undecided
        and without_headroom(plateau, low, 0.9) is plateau
    )
    capped = verdict(FLAT, 0.57, 1, budget_left=False)
    assert without_headroom(capped, low, 0.57) is capped, "levers that were not tried may help"


def test_a_history_survives_json() -> None:
    """`optimize verdict` draws the verdict from this text alone."""
    kind = TypeAdapter(History)
    history = History(
        (replace(FLAT[0], scores=(1.0, None, 0.25)), *FLAT[1:]), 0.9, 100, 2, True, 40
    )
    again = kind.validate_json(kind.dump_json(history))
    assert again == history and decide(again) == decide(history)


@pytest.mark.parametrize(
    ("gain", "cheaper", "expected"),
    [
        (Interval(0.05, -0.03, 0.13, 50), False, True),  # more than one standard error (0.041)
        (Interval(0.03, -0.05, 0.11, 50), False, False),
        # fewer calls, and not worse by more than half a standard error
        (Interval(-0.01, -0.09, 0.07, 50), True, True),
        (Interval(-0.03, -0.11, 0.05, 50), True, False),
    ],
)
def test_promotion(gain: Interval, cheaper: bool, expected: bool) -> None:
    assert promotes(gain, cheaper) is expected


def test_a_tenth_fewer_calls_are_cheaper() -> None:
    """One call that was asked for again must not make a program the dearer one."""
    assert is_cheaper(1.0, 1.2) and not is_cheaper(1.0, 1.0 + 1 / 48)


def test_test_rows_needed_are_more_the_nearer_the_score_and_the_oftener_they_were_read() -> None:
    def rows(right: int, reads: int = 1) -> int | None:
        return rows_to_confirm(mean_interval(scores(right, 168)), None, 0.9, reads)  # type: ignore[arg-type]

    assert 600 < (rows(154) or 0) < 900, "0.917 of 0.9, by a standard error of 0.021"
    assert (rows(154, 2) or 0) > (rows(154) or 0) > (rows(155) or 0) > 168
    assert rows(151) is None, "too near"
    assert rows(130) is None, "known already: it is below"


def test_rows_needed_are_those_of_the_program_that_keeps_the_verdict_open() -> None:
    """The best one is surely below the target on its 400 rows; another, on 100, is not."""
    surely = replace(FLAT[1], scores=scores(200, 400))
    unsure = replace(FLAT[2], scores=tuple(reversed(scores(49, 100))))
    found = verdict((surely, unsure, FLAT[3]), 0.58)
    assert found.verdict == "indecisive" and found.best.interval.n == 400 and found.reached < ERROR
    assert found.chance > ERROR and found.rows and 450 < found.rows < 800

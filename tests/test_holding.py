"""Whether a program still holds: the rules, and whether two samples are of one kind."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from optimize import lm as lms
from optimize.climb.holding import Labelled, held, labelled, watched
from optimize.data.drift import inputs_drift, words_drift
from optimize.finetune.effects import PriceRecord
from optimize.report.recheck import (
    RecheckedLm,
    RecheckRecord,
    recheck_section,
    recheck_sentences,
)
from optimize.report.retired import retirement_sentence
from optimize.report.text import warnings
from optimize.stats.intervals import Interval
from optimize.stats.records import GainRecord, ScoreRecord
from optimize.stats.two_samples import drop_shown, higher, holm, mean_change, shares_differ
from tests.test_report import plateau

WORDS = [f"{a}{b}{a}" for a in "abcdefghijklmnop" for b in "aeiou"]


def right(n: int, of: int) -> list[float]:
    return [1.0] * n + [0.0] * (of - n)


@pytest.mark.parametrize(
    ("before", "after", "reads", "verdict", "at_target"),
    [
        (right(90, 100), right(90, 100), 1, "still at target", True),
        (right(99, 100), right(90, 100), 1, "still at target", True),  # worse, and good enough
        (right(90, 100), right(60, 100), 1, "worse", False),
        (right(40, 100), right(70, 100), 1, "better", False),
        (right(70, 100), right(95, 100), 1, "better", True),
        (right(85, 100), right(81, 100), 1, "cannot tell", False),
        (right(84, 100), right(84, 100), 1, "still at target", True),
        (right(84, 100), right(84, 100), 20, "cannot tell", False),  # read too often
    ],
)
def test_the_verdict_on_a_program_asked_again(
    before: list[float], after: list[float], reads: int, verdict: str, at_target: bool
) -> None:
    found = held(0.8, before, after, reads=reads)
    assert (found.verdict, found.at_target) == (verdict, at_target), found


def test_several_lms_widen_each_others_intervals_and_missing_calls_are_left_out() -> None:
    one, many = (held(0.8, right(90, 100), right(80, 100), lms) for lms in (1, 5))
    assert many.gain.high > one.gain.high and one.gain.mean == many.gain.mean
    failed: list[float | None] = [None] * 10
    found = held(0.8, right(90, 100), right(90, 90) + failed)
    assert found.gain.n == 90 and found.verdict == "cannot tell", "a tenth of the calls failed"


def test_labels_go_before_drift_and_tuned_weights_are_trained_again() -> None:
    was, fine, bad = right(90, 100), right(88, 100), right(60, 100)
    good, worse = (labelled(0.8, was, after, reached=True) for after in (fine, bad))
    assert worse.worse and worse.missed and not good.worse and not good.missed
    asked: dict[tuple[Labelled | None, bool, bool], str] = {
        (good, False, False): "ok",
        (good, True, False): "ok",
        (None, False, False): "ok",
        (None, True, False): "relabel",
        (worse, False, False): "re-optimize",
        (worse, True, True): "retrain",
    }
    for (found, drifted, tuned), verdict in asked.items():
        assert watched(found, drifted, tuned, reached=True, least=0.02) == verdict
    assert watched(None, False, False, True, 0.02, told=False) == "cannot tell"
    assert watched(None, True, False, True, 0.02, told=False) == "relabel"
    few = labelled(0.8, was, right(7, 8), reached=True)
    assert watched(few, True, False, reached=True, least=0.02) == "relabel", "8 rows do not tell"
    below = labelled(0.8, right(50, 100), right(30, 100), reached=False)
    assert below.worse and not below.missed, "a target that was never reached is not missed"


def test_the_change_between_two_samples() -> None:
    found = mean_change(right(56, 70), right(48, 80))
    # Newcombe 1998, table II (a): 56/70 less 48/80 is 0.0524 … 0.3339 by method 10
    assert (-found.high, -found.low) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    rng = random.Random(1)
    inside = 0
    for _ in range(300):
        one, other = ([rng.betavariate(4, 2) for _ in range(n)] for n in (40, 15))
        interval = mean_change(one, other)
        inside += interval.low <= 0 <= interval.high
    assert 275 <= inside <= 297
    assert drop_shown(0.9, 100, 50) < drop_shown(0.9, 100, 20)
    assert mean_change(right(0, 9), right(0, 9)).high > 0.2, "equal scores are not certain"


def test_shares_of_labels_by_permutation_agree_with_chi_square_where_that_holds() -> None:
    first, second = ["a"] * 60 + ["b"] * 40, ["a"] * 45 + ["b"] * 55
    exact = chi2_contingency([[60, 40], [45, 55]], correction=False).pvalue
    assert shares_differ(first, second) == pytest.approx(exact, abs=0.03)
    assert shares_differ(["a"] * 50, ["a"] * 20) == 1.0
    # a label seen once is no alarm, where the table's chi-square is 5
    assert shares_differ(["a"] * 50, ["a"] * 9 + ["b"]) > 0.1


def test_ps_are_those_of_chance_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    ps = [higher(list(rng.random(30)), list(rng.random(12)), seed) for seed in range(200)]
    assert 0.02 <= np.mean(np.array(ps) <= 0.1) <= 0.17
    assert higher([0.0] * 30, [1.0] * 5) <= 0.001 and higher([1.0] * 30, [0.0] * 5) == 1.0
    assert holm([0.01, 0.04, 0.02]) == pytest.approx([0.03, 0.04, 0.04])


def texts(rng: random.Random, words: list[str], n: int) -> list[str]:
    return [" ".join(rng.sample(words, 6)) for _ in range(n)]


def test_texts_of_another_kind_are_told_apart_and_texts_of_the_same_kind_are_not() -> None:
    rng = random.Random(2)
    known, same = texts(rng, WORDS, 150), texts(rng, WORDS, 60)
    other = texts(rng, WORDS[:30], 60)
    assert inputs_drift(known, same).p > 0.05
    found = inputs_drift(known, other)
    assert found.p <= 0.002 and found.auc > 0.7 and 0.5 < found.visible < 0.7
    assert inputs_drift(known, ["!", "?"]).p > 0.001, "a few texts without words"
    alarms = sum(
        inputs_drift(texts(rng, WORDS, 40), texts(rng, WORDS, 15), seed).p <= 0.1
        for seed in range(30)
    )
    assert alarms <= 8


def test_unknown_words_are_counted_against_texts_that_were_held_back() -> None:
    rng = random.Random(3)
    learnt, held_back = texts(rng, WORDS, 60), texts(rng, WORDS, 30)
    fresh = [f"{text} zork" for text in texts(rng, WORDS, 30)]
    found = words_drift(learnt, held_back, fresh)
    assert found.p <= 0.01 and found.new > found.known and found.words[0] == "zork"
    assert words_drift(learnt, held_back, texts(rng, WORDS, 30)).p > 0.05


def rechecked(lm: str, usd: float | None, at_target: bool = True) -> RecheckedLm:
    price = PriceRecord(
        tokens_in=100, tokens_out=9, seconds=1, usd=usd, seconds_right=1, usd_right=usd
    )
    return RecheckedLm(
        lm=lm,
        score=ScoreRecord.of(Interval(0.9, 0.8, 0.95, 80)),
        verdict="still at target" if at_target else "cannot tell",
        gain=GainRecord.between(right(72, 80), right(71, 80)),
        chance=0.95,
        at_target=at_target,
        price=price,
        calls=80,
    )


def record(*lms: RecheckedLm, **more: Any) -> RecheckRecord:
    return RecheckRecord(
        task="t",
        run="r",
        lm="openai/old",
        target=0.8,
        before=ScoreRecord.of(Interval(0.9, 0.8, 0.95, 80)),
        test_reads=3,
        anew=1,
        lms=list(lms),
        lm_calls=160,
        cost_usd=1.0,
        seconds=60,
        **more,
    )


def test_the_cheapest_lm_that_is_at_the_target_is_named() -> None:
    found = record(
        rechecked("openai/a", 0.002), rechecked("openai/b", 0.0004), rechecked("x/c", 1e-5, False)
    )
    said = " ".join(recheck_sentences(found, date(2026, 11, 26)))
    assert "cheapest that is at the target is openai/b, at $0.40 for 1,000 answers" in said
    assert "judged 3 programs and LMs" in said and found.outcome == "2 of 3 at target"
    assert not found.at_target and "0.40" in [row[6] for row in recheck_section(found).rows]
    unknown = record(rechecked("openai/a", None), rechecked("openai/b", 0.1, False))
    said = " ".join(recheck_sentences(unknown, date(2026, 11, 26)))
    assert "At the target: openai/a. The price of openai/a is not known." in said
    none = record(rechecked("a/a", 0.1, False), rechecked("a/b", 0.1, False))
    assert "None of them" in " ".join(recheck_sentences(none, date(2026, 11, 26)))


def test_answers_that_are_all_as_before_are_no_open_question() -> None:
    lm = rechecked("openai/a", 0.1, False)
    same = record(lm.model_copy(update={"other_answers": 0}))
    assert "every row is answered as before" in recheck_sentences(same, date(2026, 11, 28))[0]
    some = record(lm.model_copy(update={"other_answers": 3}))
    (said, *_) = recheck_sentences(some, date(2026, 11, 28))
    often = some.model_copy(update={"test_reads": 4})
    assert "a probability of 98.8% now" in " ".join(recheck_sentences(often, date(2026, 11, 28)))
    assert "cannot tell whether it has changed" in said and "3 rows are answered diff" in said


def test_the_day_an_lm_is_switched_off_is_told() -> None:
    day = lms.retires("openai/gpt-4-0613")
    assert day and lms.retires("openai/ft:gpt-4-0613:acme::1") and lms.retires("embedded") is None
    assert lms.retires("openai/gpt-4-0613", "http://127.0.0.1:1/v1") is None, "not that provider's"
    assert "was to be" in retirement_sentence("a/b", day, date(day.year + 1, 1, 1))
    assert f"is switched off on {day}" in retirement_sentence("a/b", day, date(2020, 1, 1))
    found = plateau(lm="openai/gpt-4-0613", lm_retires=day)
    assert f"switched off on {day}" in warnings(found)[0] and not warnings(plateau())

"""How sure and how right: the figures by hand, what a real LM tells of its tokens, and rows out of
the distribution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize import lm as lms
from optimize.data.rows import load_splits
from optimize.errors import WorkbenchError
from optimize.finetune.effects import effects
from optimize.lm import weights
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from optimize.program.program import student
from optimize.scoring.calibration import brier_change, confidence
from optimize.scoring.evaluate import Asking, evaluate
from optimize.scoring.evaluation import Evaluation, Outcome
from optimize.task import Task

Tiny = Callable[..., Task]


def found(pairs: Sequence[tuple[float | None, float | None]]) -> Evaluation:
    return Evaluation(tuple(Outcome(score, {}, confidence=sure) for sure, score in pairs))


def test_the_figures_by_hand() -> None:
    """Ten answers given 0.2 of which two are right, ten given 0.9 of which six are: the second bin
    is 0.3 off.
    """
    low, high = [(0.2, 1.0)] * 2 + [(0.2, 0.0)] * 8, [(0.9, 1.0)] * 6 + [(0.9, 0.0)] * 4
    told = confidence(found([*high, *low, (None, 1.0), (0.5, None)]))
    assert told and told.n == 20 and [b.n for b in told.bins] == [10, 10]
    assert (told.ece, told.surest_half, told.mean) == pytest.approx((0.15, 0.6, 0.55))
    assert told.brier == pytest.approx((2 * 0.64 + 8 * 0.04 + 6 * 0.01 + 4 * 0.81) / 20)


def test_rows_of_equal_confidence_are_not_told_apart_by_their_scores() -> None:
    told = confidence(found([(0.8, float(n % 10 < 7)) for n in range(120)]))
    assert told and len(told.bins) == 1, "there is nothing to sort by"
    assert (told.ece, told.surest_half) == pytest.approx((0.1, 0.7))
    steps = [(sure, float(n < sure * 10)) for sure in (0.6, 0.8, 1.0) for n in range(10)]
    told = confidence(found(steps * 4))
    assert told and told.ece == pytest.approx(0) and told.surest_half == pytest.approx(0.9)


def test_an_lm_that_is_only_surer_is_not_called_better_calibrated() -> None:
    """The second one's answers are surer and as often right as it says, like the first one's: its
    Brier score falls by p(1 - p), which is no calibration error.
    """
    rng = random.Random(1)
    wins = 0
    for _ in range(60):
        unsure = [(0.5, float(rng.random() < 0.5)) for _ in range(60)]
        same = [(0.5, float(rng.random() < 0.5)) for _ in range(60)]
        change = brier_change(found(unsure), found(same))
        assert change
        wins += change.high < 0
    assert wins <= 6
    sure = [(0.95, float(n < 57)) for n in range(60)]
    change = brier_change(found([(0.5, s) for _, s in sure]), found(sure))
    assert change and change.high < 0
    assert brier_change(found([(0.5, 1.0)] * 19), found([(0.5, 1.0)] * 19)) is None


def test_nothing_by_chance_is_told_of_graded_scores() -> None:
    told = confidence(found([(0.5, 0.5)] * 40))
    assert told and told.ece == 0 and told.floor is None


def test_too_few_answers_with_a_confidence_tell_nothing() -> None:
    assert confidence(found([(0.5, 1.0)] * 19 + [(None, 1.0)] * 50)) is None


@pytest.mark.parametrize(
    ("name", "tells"),
    [
        ("openai/gpt-4.1-mini", True),
        ("openai/gpt-5-mini", False),
        ("anthropic/claude-sonnet-4-5", False),
    ],
)
def test_only_lms_that_are_known_to_tell_are_asked(name: str, tells: bool) -> None:
    lm = MeteredLM(name, meter=Meter(1), temperature=None, max_tokens=16000)
    assert ("logprobs" in lms.telling(lm).kwargs) is tells and "logprobs" not in lm.kwargs


@pytest.mark.lm
def test_the_embedded_lm_tells_how_sure_it_is_and_answers_as_before(
    tiny: Tiny, mood_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The tiny tasks' metric compares all that a prediction holds, so that no probability may be
    left in it.
    """
    task = tiny(rows=mood_rows)
    splits = load_splits(task)
    program = student(task)
    program.format = "compact"
    lms.configure(tmp_path)
    lm = lms.local_lm(weights.pull_embedded(print), None, Meter(100), 8)
    both = []
    for asked in (lm, lms.telling(lm)):
        with dspy.context(lm=asked):
            both.append(evaluate(program, splits.val[:8], Asking(task, 4)))
    plain, told = both
    assert [o.answer for o in plain.outcomes] == [
        o.answer for o in told.outcomes
    ] and plain.scores == told.scores
    assert any(plain.scores) and all(o.confidence is None for o in plain.outcomes)
    sure = [o.confidence for o in told.outcomes]
    assert all(s is not None and 0 < s <= 1 for s in sure) and len(set(sure)) > 1


def test_where_an_lm_does_not_tell_repeats_do(tiny: Tiny) -> None:
    class Wavering(dspy.Module):
        said = iter(["good", "good", "bad", "good"])

        def forward(self, **inputs: Any) -> dspy.Prediction:
            return dspy.Prediction(mood=next(self.said))

    rows = [dspy.Example(text="x", mood="good").with_inputs("text")]
    (outcome,) = evaluate(Wavering(), rows, Asking(tiny(), threads=1, repeats=4)).outcomes
    assert outcome.confidence == 0.75 and outcome.score == 0.75


def test_rows_out_of_the_distribution_may_lack_an_answer_and_are_held_apart(
    tiny: Tiny, mood_rows: list[dict[str, Any]]
) -> None:
    task = tiny(
        rows=mood_rows, ood=[{"text": "what is the time?"}, {"text": "a bell", "mood": "good"}]
    )
    splits = load_splits(task)
    assert [set(e.keys()) for e in splits.ood] == [{"text"}, {"text", "mood"}]
    held = splits.digest
    (task.folder / "ood.jsonl").unlink()
    assert load_splits(task).digest == held, "they are not part of what a climb stands on"
    test = tuple(found([(s, 1.0)] * len(splits.test)) for s in (0.6, 0.9))
    ood = found([(0.5, 0.0), (0.7, 1.0)]), found([(0.99, 0.0), (0.95, 1.0)])
    told = effects(task, splits, (test[0], test[1]), ood, 10.0, in_flight=1).ood
    assert told and (told.n, told.score_before, told.score_after) == (2, 0.5, 0.5)
    assert (told.sure_before, told.sure_after) == pytest.approx((0.6, 0.97))
    assert told.told_apart_before and told.told_apart_after
    assert (told.told_apart_before.score, told.told_apart_after.score) == (0.5, 0.0), (
        "after the tuning it is surer where it knows nothing"
    )
    assert told.told_apart_before.low < 0.2 and told.told_apart_before.high > 0.8, "of two rows"


def test_an_ood_row_with_another_label_is_told(tiny: Tiny, mood_rows: list[dict[str, Any]]) -> None:
    with pytest.raises(WorkbenchError, match=r"ood\.jsonl:1: field 'mood': 'oos' is not one of"):
        load_splits(tiny(rows=mood_rows, ood=[{"text": "what is the time?", "mood": "oos"}]))


@pytest.mark.parametrize(
    ("told", "sure"),
    [
        ({"content": [{"logprob": math.log(0.5)}, {"logprob": math.log(0.4)}]}, 0.2),
        ({"content": []}, None),
        ({"content": None}, None),
        (None, None),
    ],
)
def test_a_probability_is_that_of_all_tokens_and_none_where_none_is_told(
    told: dict[str, Any] | None, sure: float | None
) -> None:
    class Told(dspy.Module):
        def forward(self, **inputs: Any) -> dspy.Prediction:
            return dspy.Prediction(mood="good", logprobs=told)

    from tests.conftest import Mood, exact

    task = Task(signature=Mood, metric=exact)
    (outcome,) = evaluate(
        Told(), [dspy.Example(text="x", mood="good").with_inputs("text")], Asking(task, 1)
    ).outcomes
    assert outcome.confidence == (sure and pytest.approx(sure))
    assert outcome.answer == {"mood": "good"} and outcome.score == 1.0


def test_words_before_an_answer_are_no_part_of_how_sure_it_is(tiny: Tiny) -> None:
    class Reasoning(dspy.Module):
        said = iter("abcd")

        def forward(self, **inputs: Any) -> dspy.Prediction:
            told = {"content": [{"logprob": -9.0}]}
            return dspy.Prediction(mood="good", reasoning=next(self.said), logprobs=told)

    task = replace(tiny(), metric=lambda row, found: float(found.mood == row.mood))
    rows = [dspy.Example(text="x", mood="good").with_inputs("text")]
    (once,) = evaluate(Reasoning(), rows, Asking(task, threads=1)).outcomes
    (often,) = evaluate(Reasoning(), rows, Asking(task, threads=1, repeats=3)).outcomes
    assert once.confidence is None and often.confidence == 1.0, "the same answer each time"

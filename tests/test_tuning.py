"""After a tuning: slices, classes, prices, the decision; and once for real, from training to the
decision record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.climb.climb import climb
from optimize.climb.observer import Observer
from optimize.climb.preflight import preflight
from optimize.climb.rungs import LADDER
from optimize.climb.setup import Setup
from optimize.commands.finish import Findings, settle
from optimize.commands.new import write_task
from optimize.commands.on_test import on_test
from optimize.commands.run import climb_record
from optimize.commands.session import open_session, tracked_run
from optimize.commands.tune import tune
from optimize.config import RunConfig
from optimize.data.rows import Splits, load_splits, row_hash
from optimize.finetune.accept import accept, level
from optimize.finetune.effects import classes, effects, price
from optimize.finetune.forgetting import ForgettingRecord
from optimize.finetune.gate import GateRecord
from optimize.lm.usage import Usage
from optimize.program.program import student
from optimize.report.sentences import decision_sentences
from optimize.report.text import decision
from optimize.scoring.evaluation import UNPARSABLE, Evaluation, Outcome
from optimize.scoring.slices import by_slice, slices
from optimize.stats.intervals import Gain, paired_gain
from optimize.stats.records import GainRecord
from optimize.store.read import earlier_tests
from optimize.task import Task
from tests.pairs import pairs_program

Tiny = Callable[..., Task]


def rows(*texts: str, mood: str = "good", **more: str) -> list[dspy.Example]:
    return [dspy.Example(text=text, mood=mood, **more).with_inputs("text") for text in texts]


def test_rows_are_sliced_by_label_length_source_and_nearness(tiny: Tiny) -> None:
    train = rows("the saddle is soft", "a lovely bell")
    near = rows(*[f"the saddle is soft {c}" for c in "abcde"], source="mail")
    far = rows(*[f"zyx wvu tsr qpo nml kji hgf {c}" for c in "abcde"], mood="bad", source="chat")
    found = slices(tiny(), train, [*near, *far])
    assert found["like some train row"] == [0, 1, 2, 3, 4] and found["unlike any train row"] == [
        5,
        6,
        7,
        8,
        9,
    ]
    assert found['label "good"'] == found["source mail"] == [0, 1, 2, 3, 4] and found[
        "source chat"
    ] == [5, 6, 7, 8, 9]
    assert not {"short", "long"} & found.keys(), "thirds of ten rows are too few to be told"
    thirds = slices(tiny(), train, rows(*["a" * (n + 1) for n in range(15)]))
    assert thirds["short"] == [0, 1, 2, 3, 4] and thirds["long"] == [10, 11, 12, 13, 14]


def test_the_worst_slice_comes_first_and_failed_calls_drop_out() -> None:
    before, after = (
        [1.0] * 5 + [0.0] * 5 + [1.0] * 5,
        [0.0] * 5 + [1.0] * 5 + [1.0, 1.0, 1.0, 1.0, None],
    )
    found = by_slice({"up": range(5, 10), "down": range(5), "few": range(10, 15)}, before, after)
    assert [(s.name, s.before, s.after, s.gain.mean) for s in found] == [
        ("down", 1.0, 0.0, -1.0),
        ("up", 0.0, 1.0, 1.0),
    ]


def outcome(
    score: float | None, answer: str, seconds: float = 1.0, usage: Usage | None = None
) -> Outcome:
    usage = usage or Usage(asked=1, calls=1, tokens_in=100, tokens_out=4)
    return Outcome(
        score,
        {"mood": answer},
        usage=usage,
        asked_anew=int(usage.calls > 0),
        seconds=seconds,
    )


def test_class_figures_are_scikit_learns(tiny: Tiny) -> None:
    """Three good rows, one missed; one bad row, found; a second one unparsable: recall 2/3 and 1/2,
    precision 1 and 1/2.
    """
    gold = [*rows("a", "b", "c"), *rows("d", "e", "f", mood="bad")]
    unparsable = Outcome(0.0, {"unparsable": "?"}, error=UNPARSABLE)
    found = [
        outcome(1, "good"),
        outcome(1, "good"),
        outcome(0, "bad"),
        outcome(1, "bad"),
        unparsable,
        outcome(None, ""),
    ]
    told = classes(tiny(), gold, Evaluation(tuple(found)))
    assert told and (told.accuracy, told.recall, told.precision) == pytest.approx(
        (0.6, (2 / 3 + 1 / 2) / 2, (1 + 1 / 2) / 2)
    )
    assert told.f1 == pytest.approx((0.8 + 0.5) / 2)


def test_prices_are_means_of_what_was_asked_anew() -> None:
    cached = outcome(1, "good", seconds=0.0, usage=Usage(asked=1))
    found = price(Evaluation((outcome(1, "good", 2.0), outcome(0, "bad", 4.0), cached)))
    assert found and (
        found.tokens_in,
        found.tokens_out,
        found.seconds,
        found.seconds_right,
        found.usd,
    ) == (100, 4, 3.0, 6.0, 0.0)
    assert price(Evaluation((cached,))) is None
    unpriced = price(Evaluation((outcome(1, "good", usage=Usage(asked=1, calls=1, unpriced=1)),)))
    assert unpriced and unpriced.usd is None and unpriced.usd_right is None


def test_a_training_pays_after_as_many_answers_as_make_up_for_it(
    tiny: Tiny, mood_rows: list[dict[str, Any]]
) -> None:
    task = tiny(rows=mood_rows)
    splits = load_splits(task)
    slow, fast = (
        Evaluation(tuple(outcome(1, e.mood, seconds) for e in splits.test))
        for seconds in (3.0, 1.0)
    )
    assert effects(task, splits, (slow, fast), None, 100.0, in_flight=4).pays_after == 200
    assert effects(task, splits, (fast, slow), None, 100.0, in_flight=4).pays_after is None


def gain(mean: float, error: float) -> Gain:
    return Gain(mean, mean - error, mean + error, 100)


def forgotten(named: bool, regressed: bool) -> ForgettingRecord:
    drop = GainRecord.of(gain(-0.3 if regressed else 0.0, 0.1))
    return ForgettingRecord(
        name="general",
        named=named,
        base=0.6,
        tuned=0.3,
        n=72,
        drop=drop,
        regressed=regressed,
        held=not regressed,
        examples=[],
    )


@pytest.mark.parametrize(
    ("val", "test", "named", "regressed", "least", "accepted"),
    [
        (0.3, 0.2, False, False, 0.02, True),
        (0.3, 0.2, True, False, 0.02, True),
        # told, but the user did not say that it must not get worse
        (0.3, 0.2, False, True, 0.02, True),
        (0.3, 0.2, True, True, 0.02, False),
        (0.3, 0.05, False, False, 0.02, False),  # within its interval of ±0.1
        (-0.1, 0.2, False, False, 0.02, False),
        (0.3, 0.2, False, False, 0.25, False),
    ],
)
def test_only_a_gain_that_test_confirms_that_is_worth_it_and_that_breaks_nothing_named_is_accepted(
    val: float, test: float, named: bool, regressed: bool, least: float, accepted: bool
) -> None:
    found = accept("lora", gain(val, 0.1), gain(test, 0.1), 1, [forgotten(named, regressed)], least)
    assert found.accepted is accepted and found.tuned == "lora" and found.wrong_if
    assert found.sure is (val > 0 and test > 0.1)


def test_the_more_tunings_the_test_rows_have_judged_the_more_is_asked_of_one() -> None:
    before, after = [0.0] * 100, [1.0] * 7 + [0.0] * 93
    once, again = (paired_gain(before, after, level(n)) for n in (1, 20))
    assert (
        accept("lora", once, once, 1, [], 0.02).accepted
        and not accept("lora", once, again, 20, [], 0.02).accepted
    )
    said = decision_sentences(accept("lora", once, again, 20, [], 0.02), [], "")
    assert "have judged 20 tuned LMs" in said[1]


WORDS = {
    "apple": "violin",
    "river": "cactus",
    "mountain": "teapot",
    "window": "rocket",
    "candle": "walrus",
    "garden": "ladder",
}
PROGRAM = pairs_program(WORDS.values(), ', stability="stable", owner="us"')
CONTEXTS = (
    "kitchen",
    "letter",
    "winter",
    "singer",
    "harbour",
    "station",
    "village",
    "doctor",
    "summer",
    "bridge",
    "teacher",
    "market",
)


@pytest.mark.lm
@pytest.mark.slow
def test_from_training_to_the_decision_record(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the lora extra is not installed")
    made = [
        {"text": f"{word} of the {place}", "word": answer}
        for place in CONTEXTS
        for word, answer in WORDS.items()
    ]
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "words.py").write_text(PROGRAM)
    questions = [
        {"question": f"What is {n} + {n}?", "check": "number", "expected": [2 * n], "skill": "sums"}
        for n in range(1, 5)
    ]
    for name, lines in (("words", made), ("general", questions)):
        (tmp_path / "devsets" / name).mkdir(parents=True)
        (tmp_path / "devsets" / name / "rows.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
    (tmp_path / "devsets" / "words" / "ood.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} o'clock"}) + "\n" for n in range(12))
    )
    (tmp_path / "devsets" / "general" / "replay.txt").write_text("Name a river.\nWhat is snow?\n")
    write_task(tmp_path, "review")
    config = RunConfig(
        finetune="lora", epochs=5, replay=2, no_regression_on=("general", "review"), max_calls=400
    )
    session = open_session(tmp_path, "words", config, Observer())
    assert isinstance(session.splits, Splits)
    with tracked_run(session, "finetune") as tracked, dspy.context(lm=session.lm):
        setup = Setup(session.task, session.splits, session.teacher, session.meter, 0.9, 4, 0)
        (compact,) = [rung for rung in LADDER if rung.name == "output_format"]
        climbed = climb(setup, [compact], Observer())
        best, evaluation = climbed.best.program, climbed.best.evaluation
        assert best and evaluation
        checked = preflight(session.task, session.splits, config)
        record = climb_record(session, climbed, checked)
        tested = on_test(session, {"zero_shot": student(session.task), "prompt": best})
        tuned = tune(session, tracked, best, evaluation)
        opened = GateRecord(open=True, criteria=[])
        report = settle(session, tracked, Findings(record, opened, best, evaluation, tested, tuned))
    assert (
        report.decision
        and report.test.tuned
        and report.test.tuned.score >= 0.6 > report.test.zero_shot.score
    )
    # an LM of this size forgets nearly anything it is not trained on
    regressed = [f.name for f in report.forgetting if f.regressed]
    assert report.decision.accepted is (not regressed)
    assert ("--replay 2 --epochs 2" in report.next) is bool(regressed), "what keeps more of it"
    hashes = [row_hash(session.task, row) for row in session.splits.test]
    (read,) = earlier_tests(tmp_path, "words", ("tuned",))
    assert list(read) == hashes and report.decision.tunings == 1
    assert not earlier_tests(tmp_path, "review", ("tuned",))
    assert report.final == (report.test.prompt if regressed else report.test.tuned)
    assert report.test.tuned_other and {a.rung for a in tuned.attempts} == {
        "lora",
        "lora, best prompt",
        "lora, levers",
    }
    levers = tuned.attempts[-1]
    assert bool(levers.skipped) is not bool(levers.evaluation) and not report.failed
    assert report.training_rows and report.training_rows.replayed == 2
    assert [(f.name, f.named) for f in report.forgetting] == [
        ("general", True),
        ("review", True),
    ] and report.forgetting[1].n >= 5
    assert (
        report.effects
        and report.effects.slices
        and report.effects.price_after
        and report.effects.classes_after
    )
    assert report.effects.classes_after.f1 > 0.8 and report.effects.train_seconds > 1
    assert report.effects.train_seconds >= sum(epoch.seconds for epoch in report.training) > 0
    assert (
        report.effects.ood and report.effects.ood.n == 12 and report.effects.ood.score_after == 0.0
    ), "no answer is right"
    assert report.effects.ood.sure_after and report.effects.ood.told_apart_after is not None
    assert len(report.charts) == 2 and all((tmp_path / c).is_file() for c in report.charts)
    told = decision(report)
    assert (
        ("is not accepted" in told) is bool(regressed)
        and "This decision is wrong as soon as" in told
        and "| unlike any train row |" in told
    )
    assert (
        tuned.chosen.evaluation
        and f"| {tuned.chosen.rung} (judged) | {tuned.chosen.evaluation.interval.mean:.2f} ["
        in told
    )

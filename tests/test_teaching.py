"""What a tuned LM learns from, made with the real LM: preferences, a teacher's answers, replayed
instructions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.climb.observer import Observer
from optimize.commands.lessons import Pupil, _said, lesson_calls, lessons, rehearsal
from optimize.commands.session import Session, open_session
from optimize.config import RunConfig
from optimize.data.split import near_duplicate_groups
from optimize.errors import WorkbenchError
from optimize.finetune.forgetting import questions, replayable, replays
from optimize.finetune.training_rows import tuned_student
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from optimize.program.program import Program, student
from tests.conftest import Says

PROGRAM = """
from typing import Literal

import dspy

from optimize.task import Task


class Mood(dspy.Signature):
    \"\"\"Judge the review.\"\"\"

    text: str = dspy.InputField()
    mood: Literal["good", "bad"] = dspy.OutputField()


task = Task(signature=Mood, metric=lambda row, answer: float(row.mood == answer.mood), max_tokens=8)
"""
Opened = Callable[..., tuple[Session, Program]]


@pytest.fixture
def opened(tmp_path: Path, mood_rows: list[dict[str, Any]], root: Path) -> Opened:
    """A task with ten unlabelled inputs, two of which are rows typed twice, and its student in the
    format of small LMs.
    """
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "mood.py").write_text(PROGRAM)
    more = [
        {"text": f"the {thing} is {how}"}
        for thing in ("saddle", "bell", "lamp", "lock")
        for how in ("lovely", "broken")
    ]
    for name, rows in (("mood/rows", mood_rows), ("mood/unlabelled", more)):
        path = tmp_path / "devsets" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "devsets" / "general").mkdir()
    (tmp_path / "devsets" / "general" / "replay.txt").write_text(
        "\n".join(replayable(root)[:3]) + "\n"
    )

    def make(**knobs: Any) -> tuple[Session, Program]:
        session = open_session(tmp_path, "mood", RunConfig(max_calls=300, **knobs), Observer())
        best = student(session.task)
        best.format = "compact"
        return session, best

    return make


def made(session: Session, best: Program) -> list[dict[str, Any]]:
    with dspy.context(lm=session.lm):
        rows = lessons(session, Pupil(best, tuned_student(best)))
    with dspy.context(lm=session.lm):
        rows += rehearsal(session)
    assert session.meter.usage().asked == lesson_calls(session), "what it takes is known before"
    return rows


@pytest.mark.lm
def test_preferences_are_gold_over_what_the_best_program_got_wrong(opened: Opened) -> None:
    session, best = opened(method="dpo")
    rows = made(session, best)
    gold = {e.text: e.mood for e in session.splits.train}
    pairs = [row for row in rows if "chosen" in row]
    assert 20 <= len(pairs) < len(rows) == len(gold), "what it got right is learned as it is"
    provider = replace(session, config=session.config.model_copy(update={"finetune": "openai"}))
    with dspy.context(lm=session.lm):
        assert lessons(provider, Pupil(best, tuned_student(best))) == pairs, (
            "a provider takes pairs alone"
        )
    for pair in pairs:
        mood = gold[pair["prompt"][-1]["content"]]
        assert mood in pair["chosen"][0]["content"] and mood not in pair["rejected"][0]["content"]


@pytest.mark.lm
def test_a_teacher_teaches_what_it_gets_right_and_what_it_agrees_with_itself_on(
    opened: Opened,
) -> None:
    session, best = opened(method="distill", teacher="embedded")
    held = session.splits.test[0].text
    path = session.task.folder / "unlabelled.jsonl"
    path.write_text(path.read_text() + json.dumps({"text": held.upper()}) + "\n")
    session, best = opened(method="distill", teacher="embedded")
    # for the input that is a test row typed twice, which is not asked
    session.meter.find(3, key="typed twice")
    rows = made(session, best)
    gold = {e.text: e.mood for e in session.splits.train}
    asked = [row["messages"][1]["content"] for row in rows]
    labelled = [row for row in rows if row["messages"][1]["content"] in gold]
    assert len(labelled) >= 20 and all(
        gold[r["messages"][1]["content"]] in r["messages"][2]["content"] for r in labelled
    )
    assert held.upper() not in asked and any(text.startswith("the ") for text in asked)


def test_an_answer_that_cannot_be_read_three_times_over_teaches_nothing(opened: Opened) -> None:
    session, best = opened(method="distill", teacher="embedded")
    gold = {e.text: e.mood for e in session.splits.train}

    class Garbled(Program):
        def __init__(self) -> None:
            super().__init__(dspy.Predict(session.task.signature), session.task)

        def forward(self, text: str) -> dspy.Prediction:
            if text not in gold:
                raise dspy.AdapterParseError("compact", session.task.signature, "well …")
            return dspy.Prediction(mood=gold[text])

    rows = lessons(session, Pupil(Garbled(), tuned_student(best)))
    assert len(rows) == len(gold)


@pytest.mark.lm
def test_replayed_instructions_come_with_the_base_lms_own_answers(opened: Opened) -> None:
    session, best = opened(replay=3)
    rows = made(session, best)
    assert len(rows) == len(session.splits.train) + 3
    assert all(
        [m["role"] for m in row["messages"]] == ["user", "assistant"]
        and row["messages"][1]["content"]
        for row in rows[-3:]
    )


@pytest.mark.parametrize(
    ("said", "taught"),
    [
        ("Paris", "Paris"),
        ("Dear Anna,\nthank you. I will write again when", "Dear Anna,\nthank you."),
        ('She said "no." Then he asked her once more why it was that nobody had', 'She said "no."'),
        ("1. Cut the tomatoes into pieces and put them into a bowl\n2. Add", ""),
        ("1. Cut it.\n2. Add", "1. Cut it."),
        ("It is 3.5 metres long, which is more than any of the others that I know", ""),
    ],
)
def test_what_was_cut_off_is_not_taught(said: str, taught: str) -> None:
    lm = MeteredLM("x", meter=Meter(9), engine=Says([said]), local=True)
    assert _said(lm, f"Say: {said}") == taught


def test_instructions_are_replayed_where_the_lm_must_stay_general(opened: Opened) -> None:
    named = {"no_regression_on": ("general",), "finetune": "lora"}
    sizes = [
        lesson_calls(opened(**knobs)[0])
        for knobs in ({}, named, {**named, "replay": 0}, {**named, "replay": 2})
    ]
    assert sizes == [0, 3, 0, 2], "all there are: 3 are fewer than 0.3 of the train rows"
    known = opened()[0].root
    provider = RunConfig(finetune="openai", method="dpo", no_regression_on=("general",))
    assert replays(provider, 100, known) == 0 and replays(RunConfig(**named), 5, known) == 2


def test_more_to_replay_than_there_is_is_told_before_a_call(opened: Opened) -> None:
    with pytest.raises(WorkbenchError, match=r"--replay 4: .*replay\.txt has 3"):
        opened(replay=4)


@pytest.mark.lm
def test_too_few_lessons_are_told(opened: Opened) -> None:
    session, best = opened(method="dpo")
    rows = session.splits.train[:21]
    object.__setattr__(session.splits, "train", rows)
    with (
        dspy.context(lm=session.lm),
        pytest.raises(
            WorkbenchError, match=r"--method dpo leaves .* rows to learn from, at least 20"
        ),
    ):
        lessons(session, Pupil(best, tuned_student(best)))


def test_no_instruction_that_is_replayed_is_one_that_is_asked_afterwards(root: Path) -> None:
    asked, replayed = [q.question for q in questions(root)], replayable(root)
    groups = near_duplicate_groups([(text,) for text in (*asked, *replayed)])
    assert not set(groups[: len(asked)]) & set(groups[len(asked) :]) and len(set(replayed)) == 120

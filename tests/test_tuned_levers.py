"""Weights and prompts together: a scripted tuned model that reads demos, from its training to the
report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.climb.climb import climb
from optimize.climb.observer import Observer
from optimize.climb.preflight import preflight
from optimize.climb.setup import Setup
from optimize.commands.finish import Findings, settle
from optimize.commands.on_test import on_test
from optimize.commands.run import climb_record
from optimize.commands.session import Session, open_session, tracked_run
from optimize.commands.tune import tune, tuning_calls
from optimize.commands.tuned_levers import lever_calls
from optimize.config import RunConfig
from optimize.finetune import openai_job
from optimize.finetune.gate import GateRecord
from optimize.program.program import student
from optimize.report.record import Report
from optimize.report.sections import sections
from optimize.store.write import Run
from tests.test_climb import COLOURS
from tests.test_lm import completion, served
from tests.test_openai_job import BASE, Provider, write_project

Row = dict[str, Any]


class Reader(Provider):
    """The tuned model knows three of four lengths, and the fourth where it is shown demos."""

    reads = True

    def chat(self, body: Row) -> Row:
        thing = body["messages"][-1]["content"].split("## thing ## ]]\n")[-1].split("\n")[0]
        tuned = body["model"].startswith("ft:")
        shown = self.reads and len(body["messages"]) > 2
        knows = tuned and (shown or len(thing) % 4 != 1)
        colour = COLOURS[len(thing) % 3] if knows else "red"
        chat = "## thing" in body["messages"][-1]["content"]
        schema = json.dumps(body.get("response_format") or {})
        text = f"[[ ## colour ## ]]\n{colour}" if chat else colour
        return completion(body["model"], json.dumps(colour) if '"enum"' in schema else text)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reader, str]]:
    monkeypatch.setattr(openai_job, "FIRST_POLL", 0.01)
    made = Reader()
    with served(made.app) as url:
        yield made, url + "/v1"


@contextmanager
def tuning(root: Path, url: str, less: Callable[[Session], int]) -> Iterator[tuple[Any, ...]]:
    """A tuned LM after a climb without levers. less: calls that lack of those planned for it."""
    write_project(root)
    knobs = {"lm": f"openai/{BASE}", "api_base": url, "api_key": "k", "finetune": "openai"}
    session = open_session(root, "paint", RunConfig(**knobs), Observer())
    with tracked_run(session, "finetune") as tracked, dspy.context(lm=session.lm):
        setup = Setup(session.task, session.splits, session.teacher, session.meter, 0.9, 4, 0)
        climbed = climb(setup, [], Observer())
        best, evaluation = climbed.best.program, climbed.best.evaluation
        assert best and evaluation
        tested = on_test(session, {"zero_shot": student(session.task), "prompt": best})
        planned = tuning_calls(session) - less(session)
        session.meter.max_calls = session.meter.usage().calls + planned
        yield session, tracked, climbed, tested, tune(session, tracked, best, evaluation)


def told(report: Report, title: str) -> str:
    (found,) = [s for s in sections(report) if s.title.startswith(title)]
    return " ".join(found.lines)


def test_a_lever_that_helps_the_tuned_lm_makes_the_program_that_is_judged(
    reader: tuple[Reader, str], tmp_path: Path
) -> None:
    with tuning(tmp_path, reader[1], lambda _: 0) as (session, tracked, climbed, tested, tuned):
        checks = preflight(session.task, session.splits, session.config)
        record = climb_record(session, climbed, checks)
        found = climbed.best.program, climbed.best.evaluation, tested, tuned
        gate = GateRecord(open=True, criteria=[])
        report = settle(session, tracked, Findings(record, gate, *found))
    *_, plain, best, levered = report.attempts
    assert [a.rung for a in (plain, best, levered)] == [
        "openai",
        "openai, best prompt",
        "openai, levers",
    ]
    first, *others = report.levers_on_tuned
    assert first.rung == "nearest_demos" and first.promoted and first.val and first.val.score == 1.0
    assert {a.rung for a in others} == {"drawn_demos", "instruction"}, "the task has no guide"
    assert not any(a.promoted for a in others)
    assert report.decision and report.decision.tuned == levered.rung and report.decision.accepted
    test = report.test
    assert test.tuned and test.tuned_other and test.levers_gain
    assert test.tuned.score == 1.0 > test.tuned_other.score > test.prompt.score
    assert test.levers_gain.mean == pytest.approx(1.0 - test.tuned_other.score)
    assert "Prompts on the tuned LM helped on val (nearest_demos)" in told(report, "Levers on the")
    unhelped = report.model_copy(update={"test": test.model_copy(update={"levers_gain": None})})
    assert "Prompts on the tuned LM did not help" in told(unhelped, "Levers on the tuned LM")
    assert "and no general instructions (--replay)" in told(report, "Training")
    saved = json.loads((tmp_path / report.program).read_text())
    assert saved["tuned"] == f"ft:{BASE}:1" and saved["neighbours"]["k"] == 4
    assert session.meter.usage().calls <= session.meter.max_calls
    (training,) = trainings(tracked)
    assert training.info.status == "FINISHED" and training.data.tags["trainer"] == "openai"
    assert training.data.params["tuned"] == f"ft:{BASE}:1" and not training.data.metrics


def trainings(tracked: Run) -> list[Any]:
    runs = tracked.client.search_runs([tracked.experiment], "tags.trainer != ''")
    return [run for run in runs if run.data.tags["mlflow.parentRunId"] == tracked.id]


def test_without_calls_for_all_levers_the_likeliest_are_pulled(
    reader: tuple[Reader, str], tmp_path: Path
) -> None:
    with tuning(tmp_path, reader[1], lambda _: 20) as (session, *_, tuned):
        assert len(session.splits.val) > 20
        *pulled, starved = tuned.levers
        assert [lever.rung for lever in pulled] == ["nearest_demos", "drawn_demos"]
        assert starved.starved and "LM calls" in starved.skipped
        assert tuned.chosen.rung == "openai, levers" and tuned.other.rung == "openai"


def test_where_there_are_calls_for_no_lever_that_is_said(
    reader: tuple[Reader, str], tmp_path: Path
) -> None:
    with tuning(tmp_path, reader[1], lever_calls) as (*_, tuned):
        assert tuned.attempts[-1].skipped.startswith("a lever on the tuned LM takes")
        assert tuned.levers == () and not tuned.helped
        assert {tuned.chosen.rung, tuned.other.rung} == {"openai", "openai, best prompt"}


def test_levers_that_do_not_help_are_said_not_to(
    reader: tuple[Reader, str], tmp_path: Path
) -> None:
    reader[0].reads = False
    with tuning(tmp_path, reader[1], lambda _: 0) as (*_, tuned):
        assert tuned.attempts[-1].skipped == (
            "the tuned LM does no better on val with nearest_demos, drawn_demos or instruction"
        )
        assert tuned.chosen.rung == "openai" and not tuned.helped

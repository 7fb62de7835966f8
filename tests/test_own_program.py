"""docs/your-own-program.md is executable: its task loads, is checked, takes demos and is saved."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.climb.gold import gold_findings
from optimize.climb.rungs.demos import with_demos, without_step_for_rows
from optimize.data.rows import load_splits
from optimize.program.guide import Guide
from optimize.program.program import UNKNOWN, prompts, read_program, render, save, student
from optimize.task import Task, load_task

PAGE = Path(__file__).parents[1] / "docs" / "your-own-program.md"


@pytest.fixture
def booking(tmp_path: Path, mood_rows: list[dict[str, Any]]) -> Task:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "booking.py").write_text(code, encoding="utf-8")
    rows = [
        {"request": row["text"], "place": row["text"][:3]} | ({"day": "Monday"} if n % 2 else {})
        for n, row in enumerate(mood_rows)
    ]
    file = tmp_path / "devsets" / "booking" / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_task("booking", tmp_path)


def answering(*answers: dict[str, str]) -> Callable[[], dspy.LM]:
    return lambda: dspy.utils.DummyLM([dict(answer) for answer in answers])


def test_the_pages_task_is_sound_and_runs(booking: Task) -> None:
    assert gold_findings(booking, load_splits(booking)) == []
    lm = answering({"plain_request": "to Bern"}, {"place": "Bern", "day": "None"})()
    with dspy.context(lm=lm):
        found = student(booking)(request="hello")
    assert booking.score(dspy.Example(place="Bern", day=None), found).value == 1.0


def test_rows_become_demos_of_the_step_whose_outputs_they_hold(
    booking: Task, tmp_path: Path
) -> None:
    rows = load_splits(booking).train
    program = with_demos(student(booking), list(rows[:3]))
    demos = {name: len(p.demos) for name, p in program.named_predictors()}
    assert demos == {"inner.plain": 0, "inner.fill": 3}
    save(program, tmp_path / "program.json")
    again = read_program(booking, tmp_path / "program.json", lambda name: dspy.LM(name))
    assert again.dump_state() == program.dump_state()


def test_every_steps_prompt_is_shown_and_no_lm_is_asked(booking: Task) -> None:
    rows = load_splits(booking).train
    program = with_demos(student(booking), list(rows[:3]))
    program.predictors()[1].lm = answering({"place": "never asked"})()
    before, (first, second) = render(student(booking), rows[5]), prompts(program, rows[5])
    assert rows[5].request in first and UNKNOWN not in first + second
    assert rows[0].request in second and rows[0].request not in first
    shown = render(program, rows[5])
    assert shown.startswith(first) and "=== step 2 ===" in shown and shown != before
    assert not program.predictors()[1].lm.history


def test_a_step_that_cannot_be_shown_is_left_out_and_equal_steps_are_both_shown(
    booking: Task,
) -> None:
    class Talk(dspy.Module):
        def __init__(self, signature: type[dspy.Signature]) -> None:
            super().__init__()
            self.first, self.again = dspy.Predict(signature), dspy.Predict(signature)
            self.last = dspy.Predict(signature.prepend("so_far", dspy.InputField(), dspy.History))

        def forward(self, request: str) -> dspy.Prediction:
            self.first(request=request)
            self.again(request=request)
            return self.last(request=request, so_far=dspy.History(messages=[]))

    row, demo, *_ = load_splits(booking).train
    program = student(replace(booking, program=Talk))
    assert len(prompts(program, row)) == 2
    program.predictors()[1].demos = [demo]
    assert [demo.request in text for text in prompts(program, row)] == [False, True]


def look_up(query: str) -> str:
    """What the encyclopedia says."""
    return f"{query} is a village."


def test_a_program_with_tools_takes_guide_and_formats_and_keeps_its_trajectory(
    booking: Task,
) -> None:
    """dspy.ReAct asks its adapter to write what it has done so far."""
    task = replace(booking, program=lambda s: dspy.ReAct(s, tools=[look_up], max_iters=2))
    answers = (
        {
            "next_thought": "Look.",
            "next_tool_name": "look_up",
            "next_tool_args": '{"query": "Orb"}',
        },
        {"next_thought": "Done.", "next_tool_name": "finish", "next_tool_args": "{}"},
        {"reasoning": "It says so.", "place": "Orb", "day": "None"},
    )
    program = with_demos(student(task), [])
    program.guide = Guide("Places are names of villages.")
    lm = answering(*answers)()
    with dspy.context(lm=lm):
        found = program(request="to Orb")
    assert found.place == "Orb" and "Orb is a village." in str(found.trajectory)
    asked = [str(call["messages"]) for call in lm.history]
    assert len(asked) == 3 and all("Places are names of villages." in text for text in asked)
    assert "Orb is a village." in asked[1]
    assert without_step_for_rows(task) and not without_step_for_rows(booking)


def test_a_step_that_asks_asynchronously_sees_the_guide(booking: Task) -> None:
    class Later(dspy.Module):
        def __init__(self, signature: type[dspy.Signature]) -> None:
            super().__init__()
            self.fill = dspy.Predict(signature)

        def forward(self, request: str) -> dspy.Prediction:
            return asyncio.run(self.fill.acall(request=request))

    program = student(replace(booking, program=Later))
    program.guide = Guide("Places are names of villages.")
    lm = answering({"place": "Orb", "day": "None"})()
    with dspy.context(lm=lm):
        assert program(request="to Orb").place == "Orb"
    assert "Places are names of villages." in str(lm.history[0]["messages"])

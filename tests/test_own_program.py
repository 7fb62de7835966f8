"""docs/your-own-program.md is executable: its task loads, is checked, takes demos and is saved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.climb.gold import gold_findings
from optimize.climb.rungs.demos import with_demos
from optimize.data.rows import load_splits
from optimize.program.program import read_program, save, student
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

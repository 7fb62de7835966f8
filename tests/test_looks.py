"""The commands that look into runs, on a project that was run twice against a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from optimize.cli import app
from optimize.report.runs import DISPENSABLE, RunRecord, Runs, runs_section


@pytest.fixture
def here(reviewed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(reviewed)
    monkeypatch.setenv("COLUMNS", "80")
    return reviewed


def given(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, (done.output, done.stderr)
    assert all(len(line) <= 80 for line in done.output.splitlines()), done.output
    return done


def found(*arguments: str) -> Any:
    """What a command finds, as JSON."""
    return json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)


def test_all_runs_are_listed_newest_first(here: Path) -> None:
    runs = found("runs")["runs"]
    assert [run["task"] for run in runs] == ["review", "review"]
    assert runs[0]["began"] > runs[1]["began"] and runs[0]["id"] != runs[1]["id"]
    assert all(run["verdict"] == "budget" and run["score"]["n"] == 12 for run in runs)
    assert 0 < runs[1]["lm_calls"] <= 60 and runs[0]["lm"] == "openai/reviewer"
    shown = given("runs").stdout
    assert shown.index(runs[0]["id"][:8]) < shown.index(runs[1]["id"][:8])
    assert found("runs", "review", "--limit", "1") == {"runs": runs[:1], "older": 1}
    assert "1 older run" in given("runs", "--limit", "1").stdout
    assert found("runs", "unrun")["runs"] == []


def test_columns_of_the_list_give_way_to_a_narrow_screen() -> None:
    run = RunRecord(
        id="0123456789", began="2026-11-26T11:00:00Z", task="t" * 20, command="finetune",
        status="stopped", lm="openai/gpt-4.1-mini",
    )  # fmt: skip
    wide, narrow = (runs_section(Runs(runs=[run]), width) for width in (200, 60))
    assert not wide.lines and set(DISPENSABLE) < set(wide.columns)
    assert "LM" not in narrow.columns and "LM" in narrow.lines[0]
    assert {"run", "task", "result"} <= set(narrow.columns)
    assert all(len(section.columns) == len(section.rows[0]) for section in (wide, narrow))


def test_a_task_without_a_name_like_it_is_told(here: Path) -> None:
    assert "Did you mean 'review'?" in given("runs", "reviw", code=2).stderr
    assert "Tasks: review, unrun" in " ".join(given("runs", "zzz", code=2).stderr.split())

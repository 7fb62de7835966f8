"""The commands that look into runs, on a project that was run twice against a server."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from optimize.cli import app
from optimize.cli.screen import plain_console
from optimize.report.looks import difference, shown, wrong_rows
from optimize.report.rungs import (
    Changed,
    Difference,
    RowRecord,
    Shown,
    WrongRows,
    WrongRowsByKind,
)
from optimize.report.runs import DISPENSABLE, RunRecord, Runs, runs_section
from tests.reviewer import UNREADABLE


@pytest.fixture
def here(reviewed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(reviewed)
    monkeypatch.setenv("COLUMNS", "80")
    return reviewed


def given(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, (done.output, done.stderr)
    assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
    return done


def found(*arguments: str) -> Any:
    """What a command finds, as JSON."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


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


def test_the_prompt_is_shown_as_the_lm_gets_it(here: Path) -> None:
    best = found("show", "review")
    assert best["rung"] == "nearest_demos" and best["knobs"]["demos looked up"] > 0
    assert best["prompt"].startswith("--- system ---") and "Judge the review." in best["prompt"]
    assert best["val"]["n"] == 8 and best["test"]["n"] == 12
    first = found("show", "review~1~zero_shot")
    assert first["run"] != best["run"] and "demos" not in first["knobs"]
    assert first["test"]["score"] < best["test"]["score"]
    by_id = found("show", f"{best['run'][:8]}~zero_shot")
    assert (by_id["run"], by_id["prompt"]) == (best["run"], first["prompt"])
    shown = given("show", "review").stdout
    assert "--- system ---" in shown and "Judge the review." in shown
    assert "n=12 on test" in " ".join(shown.split())


def test_prompts_are_compared_with_the_rows_that_it_fixed_and_broke(here: Path) -> None:
    best = found("diff", "review")
    assert best["before"] == "review~zero_shot" and best["after"] == "review~nearest_demos"
    assert any(line.startswith("+--- assistant") for line in best["prompt"])
    gain = best["gain"]
    assert (len(best["fixed"]), len(best["broken"])) == (gain["better"], gain["worse"])
    assert gain["better"] and all(row["after"] == row["gold"] for row in best["fixed"])
    assert all(row["before"] != row["gold"] for row in best["fixed"])
    back = found("diff", "review~nearest_demos", "review~1~zero_shot")
    assert [row["row"] for row in back["broken"]] == [row["row"] for row in best["fixed"]]
    assert back["gain"]["mean"] == -gain["mean"]
    shown = given("diff", "review", "--limit", "1").stdout
    assert f"Fixed: {gain['better']} rows score higher" in shown and "more; --limit 0" in shown


def test_a_rung_alone_is_compared_with_what_it_was_built_on(here: Path) -> None:
    assert found("diff", "review~output_format")["before"] == "review~zero_shot"
    assert found("diff", "review~nearest_demos")["before"] == "review~output_format"
    later = found("diff", "review~demo_search")
    assert later["before"] == "review~nearest_demos"
    assert "nothing before it" in given("diff", "review~zero_shot", code=2).stderr


def test_wrong_rows_are_sorted_by_kind(here: Path) -> None:
    first = found("failures", "review~zero_shot")
    kinds = {kind["kind"]: kind for kind in first["kinds"]}
    assert kinds["schema"]["count"] == 1
    assert kinds["schema"]["rows"][0]["inputs"]["text"] == UNREADABLE
    assert first["wrong"] == sum(kind["count"] for kind in kinds.values()) > 1
    assert first["scored"] == 8 and first["gone"] == first["failed"] == 0
    assert all(row["score"] == 0 for kind in kinds.values() for row in kind["rows"])
    assert found("failures", "review")["wrong"] < first["wrong"]
    shown = given("failures", "review~zero_shot").stdout
    assert UNREADABLE in shown and "'Hm.'" in shown and "The right verdict is" in shown


def test_a_row_that_is_gone_is_counted(
    reviewed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(reviewed, copy)
    monkeypatch.chdir(copy)
    path = copy / "devsets" / "review" / "rows.jsonl"
    path.write_text(path.read_text().replace(UNREADABLE, "Worked at once."))
    less = found("failures", "review~zero_shot")
    assert less["gone"] == 1 and "schema" not in {kind["kind"] for kind in less["kinds"]}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("review~gepo", "has no rung 'gepo'"),
        ("reviev", "Did you mean 'review'?"),
        ("review~demo_serch", "Did you mean 'demo_search'?"),
        ("review~9", "has only 2 finished runs"),
        ("review~passages", "made no program: the task has no corpus.jsonl"),
        ("unrun", "Task 'unrun' has no finished run yet"),
    ],
)
@pytest.mark.parametrize("command", ["show", "diff", "failures"])
def test_a_run_or_rung_that_is_not_there_is_told(
    here: Path, command: str, name: str, says: str
) -> None:
    assert says in " ".join(given(command, name, code=2).stderr.split())


def test_nothing_of_a_row_steers_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;title\x07 [/INST] [bold]x \x9b1m\r"
    row = {"row": "0" * 12, "inputs": {"text": evil}, "gold": {"verdict": evil}, "feedback": evil}
    answer = RowRecord(**row, answer={"verdict": evil}, score=0.0)
    change = Changed(**row, before={"x": evil}, after={"x": evil}, score_before=0, score_after=1)
    kind = WrongRows(kind="style", meaning="m", lever="l", count=1, lost=1, rows=[answer])
    counts = {"scored": 1, "wrong": 1, "gone": 0, "failed": 0}
    views = [
        wrong_rows(WrongRowsByKind(run="r", task="t", rung="x", **counts, kinds=[kind]), 5),
        shown(Shown(run="r", task="t", rung="x", prompt=evil, knobs={"lm": evil})),
        difference(
            Difference(
                task="t",
                before="a",
                after="b",
                lms=(evil, "c"),
                prompt=[f"+{evil}"],
                fixed=[change],
                broken=[],
            ),
            5,
        ),
    ]
    for view in views:
        console = plain_console(file=io.StringIO(), width=80)
        console.print(view)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "[/INST]" in text and not any(c in text for c in "\x1b\x07\x9b\r"), repr(text)

"""The screen: rows and LM text as they are, the time left, a line a minute where it is a file."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from optimize.cli import screen as screens
from optimize.cli.screen import Screen, plain_console, time_left
from optimize.climb.observer import Attempt
from optimize.commands.tasks import overview
from optimize.report.record import AttemptRecord
from optimize.report.text import attempts_table
from tests.conftest import ROOT
from tests.test_task import write

MARKUP = "[/INST] said [/x] :smile: [red]"


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(request: pytest.FixtureRequest) -> Screen:
    found = Screen()
    found.console = plain_console(file=io.StringIO(), force_terminal=request.param, width=200)
    found.progress.live.console = found.live.console = found.console
    return found


def shown(screen: Screen) -> str:
    assert isinstance(screen.console.file, io.StringIO)
    return screen.console.file.getvalue()


def test_square_brackets_of_rows_and_lms_are_shown_as_they_are(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screens, "EVERY", 0.0)
    with screen:
        screen.noted(MARKUP)
        screen.started(f"rung {MARKUP}")
        screen.scored(1, 3, MARKUP)
        screen.finished(Attempt(f"rung {MARKUP}", "demos", error=MARKUP))
        screen.console.print(screen._view())
    assert shown(screen).count(MARKUP) >= 3


def test_tables_of_reports_show_square_brackets(tmp_path: Path) -> None:
    write(tmp_path, "broken", f"raise ValueError({MARKUP!r})")
    record = AttemptRecord.of(Attempt(MARKUP, "demos", error=MARKUP))
    console = plain_console(file=io.StringIO(), width=300)
    console.print(overview(tmp_path))
    console.print(attempts_table([record]))
    assert console.file.getvalue().count(MARKUP) == 2  # type: ignore[attr-defined]


def test_every_console_is_a_plain_one() -> None:
    """A `Console()` of rich's own would take rows for markup."""
    made = [
        str(path)
        for path in (ROOT / "optimize").rglob("*.py")
        if "Console(" in path.read_text().replace("plain_Console(", "")
    ]
    assert made == [str(ROOT / "optimize" / "cli" / "screen.py")]


@pytest.mark.parametrize(
    ("seconds", "done", "total", "left"),
    [
        (10, 1, 3, "about 20 s left"),
        (60, 10, 50, "about 4 min left"),
        (9, 0, 3, ""),
        (9, 3, 3, ""),
        (9, 1, 0, ""),
    ],
)
def test_time_left(seconds: float, done: int, total: int, left: str) -> None:
    assert time_left(seconds, done, total) == left


def test_a_log_gets_a_line_a_minute_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(screens.time, "monotonic", lambda: now[0])
    screen = Screen()
    screen.console = plain_console(file=io.StringIO())
    screen.started("mipro")
    for done in range(0, 41):  # ten seconds each: a step of a rung, then its val rows
        screen.scored(done, 100, "LM calls at most")
        now[0] += 10
    for done in range(0, 13):
        screen.scored(done, 48)
        now[0] += 10
    lines = shown(screen).splitlines()
    assert lines[:2] == ["mipro …", "mipro: 6/100 LM calls at most, about 16 min left"]
    assert lines[-1].startswith("mipro: ") and "/48, about" in lines[-1]
    assert len(lines) - 1 == (41 + 13 - 1) * 10 // 60
    # the pace is that of the rows at hand, not of the step before
    assert lines[-1].endswith("about 7 min left"), lines[-1]

"""The screen: rows and LM text as they are, the time left, a line a minute where it is a file."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pyte
import pytest

from optimize.cli import screen as screens
from optimize.cli.screen import Screen, plain_console, time_left
from optimize.climb.observer import Attempt, Observer
from optimize.climb.verdict import History, Tried
from optimize.commands.session import Both
from optimize.commands.tasks import overview
from optimize.lm.meter import Meter
from optimize.report.live import score_bar
from optimize.report.looks import tasks_shown
from optimize.scoring.evaluation import Evaluation, Outcome
from optimize.stats.intervals import paired_gain
from optimize.stats.records import ScoreRecord
from tests.conftest import ROOT
from tests.test_task import write

MARKUP = "[/INST] said [/x] :smile: [red]"


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(request: pytest.FixtureRequest) -> Screen:
    found = Screen()
    found.console = plain_console(file=io.StringIO(), force_terminal=request.param, width=200)
    found.live.console = found.console
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
    console = plain_console(file=io.StringIO(), width=300)
    console.print(tasks_shown(overview(tmp_path)))
    assert console.file.getvalue().count(MARKUP) == 1  # type: ignore[attr-defined]


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


def attempt(rung: str, right: int, of: int = 40) -> Attempt:
    """A rung that got the first so many rows right."""
    outcomes = tuple(Outcome(float(n < right), {}) for n in range(of))
    gain = paired_gain([0.0] * of, [o.score for o in outcomes])
    return Attempt(rung, "demos", None, Evaluation(outcomes), gain, seconds=71.0, promoted=True)


def history(found: list[Attempt]) -> History:
    tried = [Tried(a.rung, a.family, a.evaluation.scores) for a in found if a.evaluation]
    return History(tuple(tried), 0.9, 40, 3, True)


def climbed(screen: Screen) -> str:
    """What a screen shows of a climb of twenty rungs."""
    meter = Meter(5000)
    meter.send(12)
    meter.begin(1, "")
    screen.counts(meter, 4)
    found = []
    with screen:
        screen.noted("A run takes at most 5000 LM calls, 6.9 M tokens in, 1.7 M out ($0.00). " * 2)
        for n in range(20):
            screen.started(f"bootstrapped_demos_{n}")
            screen.scored(1234, 4321, "LM calls at most")
            if n % 3:
                found.append(attempt(f"rung_{n}", n))
                screen.finished(found[-1])
                screen.decided(history(found))
            else:
                screen.finished(Attempt(f"a long name of a rung {n}", "demos", skipped="why " * 50))
        screen.scored(2345, 4321, "LM calls at most")
        screen.live.refresh()
        return shown(screen)  # before it is taken away


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 60), (60, 15), (40, 10)])
def test_no_line_of_the_live_view_is_wider_than_the_screen(width: int, height: int) -> None:
    screen = Screen()
    screen.console = plain_console(
        file=io.StringIO(), force_terminal=True, width=width, height=height
    )
    screen.live.console = screen.console
    seen = climbed(screen)
    own, wide = pyte.Screen(width, height), pyte.Screen(300, 200)
    for terminal in (own, wide):
        pyte.Stream(terminal).feed(seen.replace("\n", "\r\n"))
    assert max(len(line.rstrip()) for line in wide.display) <= width
    lines = [line.rstrip() for line in own.display if line.strip()]
    assert lines[-1].startswith("Chance that it is at the target 0.9:")
    assert lines[-2].startswith("Best so far: rung_19 0.4")
    assert any("bootstrapped" in line and "2345/4321" in line for line in lines)
    assert ("before" in " ".join(lines)) is (height < 40)
    assert "\x1b[2J" not in seen, "a screen that is cleared flickers"
    pyte.Stream(own).feed(shown(screen)[len(seen) :].replace("\n", "\r\n"))
    assert not any("Best so far" in line for line in own.display), "the report takes its place"


def test_a_log_is_told_the_verdict_as_it_forms() -> None:
    screen = Screen()
    screen.console = plain_console(file=io.StringIO())
    climbed(screen)
    lines = shown(screen).splitlines()
    (last,) = (line for line in lines if line.startswith("rung_19: "))
    assert re.fullmatch(r"rung_19: 0.4\d \[.*\] n=40 \+0.4\d \[.*\] ▲ \(71 s, 0 calls\)", last)
    assert sum(line.startswith("Best so far") for line in lines) > 5


@pytest.mark.parametrize(
    ("score", "target", "bar"),
    [
        ((0.5, 0.3, 0.7), 0.9, "···──●──·│"),
        ((0.5, 0.3, 0.8), 0.7, "···──●─┼─·"),
        ((1.0, 0.9, 1.0), 0.9, "·········●"),
        ((0.0, 0.0, 0.2), None, "●──·······"),
    ],
)
def test_a_score_as_a_bar(score: tuple[float, float, float], target: float, bar: str) -> None:
    record = ScoreRecord(score=score[0], low=score[1], high=score[2], n=9)
    assert score_bar(record, target, 10).plain == bar


def test_whoever_passes_news_on_passes_all_of_it_on() -> None:
    news = {name for name in vars(Observer) if not name.startswith("_")}
    assert news <= vars(Both).keys(), "a note of the climb would be lost"

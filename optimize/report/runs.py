"""All runs as one table, and how a table gives way to a narrow screen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import Field

from optimize.report.sections import NONE, Section
from optimize.report.text import duration
from optimize.stats.records import Record, ScoreRecord

ID = 8  # letters of a run's id that are shown; any command takes them for it
# what a narrow screen does without, the first one first
DISPENSABLE = ("cost", "command", "LM", "time", "calls", "when", "target", "n")
GAP = 2  # between two columns


class RunRecord(Record):
    """A run in a list of runs. What a run that did not end has not found out is null."""

    id: str
    began: datetime
    task: str
    command: str
    status: Literal["finished", "running", "stopped", "failed"]
    verdict: str | None = None
    score: ScoreRecord | None = Field(None, description="on test, of the program that was kept")
    target: float | None = None
    target_met: bool | None = None
    lm: str = ""
    lm_calls: int | None = None
    cost_usd: float | None = Field(None, description="null: not known")
    minutes: float | None = None


class Runs(Record):
    """Newest first. older: runs that were left out."""

    runs: list[RunRecord]
    older: int = 0


def runs_section(found: Runs, width: int) -> Section:
    """The runs as a table of at most so many letters a line; columns give way one by one."""
    columns = list(COLUMNS)
    rows = [[show(run) for show in COLUMNS.values()] for run in found.runs]
    gone = []
    for name in DISPENSABLE:
        if _width(columns, rows) <= width:
            break
        at = columns.index(name)
        gone.append(columns.pop(at))
        for row in rows:
            del row[at]
    lines = [f"{found.older} older runs are not shown; --limit 0 shows all."] if found.older else []
    if gone:
        lines += [f"Without {', '.join(gone)}: a wider terminal shows them, and --json does."]
    return Section("", lines, columns, rows)


def _width(columns: list[str], rows: list[list[str]]) -> int:
    longest = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    return sum(longest) + GAP * (len(longest) - 1)


def _result(run: RunRecord) -> str:
    return run.verdict or run.status


def _cost(run: RunRecord) -> str:
    return NONE if run.cost_usd is None else f"${run.cost_usd:.2f}"


COLUMNS: dict[str, Callable[[RunRecord], str]] = {
    "run": lambda run: run.id[:ID],
    "when": lambda run: run.began.astimezone().strftime("%m-%d %H:%M"),
    "task": lambda run: run.task,
    "command": lambda run: run.command,
    "result": _result,
    "test score": lambda run: str(run.score) if run.score else NONE,
    "n": lambda run: str(run.score.n) if run.score else NONE,
    "target": lambda run: NONE if run.target is None else f"{run.target:g}",
    "LM": lambda run: run.lm or NONE,
    "calls": lambda run: NONE if run.lm_calls is None else str(run.lm_calls),
    "cost": _cost,
    "time": lambda run: NONE if run.minutes is None else duration(60 * run.minutes),
}

"""All tasks at a glance, as a record and as a table. Knows no store and no screen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from optimize.report.runs import ID
from optimize.report.sections import NONE, Section
from optimize.report.untrusted import visible
from optimize.stats.records import Record, ScoreRecord


class ChampionRecord(Record):
    """The best program of a task. how: made so by the run's own scores, by hand, promoted, or
    rolled back to.
    """

    run: str
    version: str
    how: Literal["run", "hand", "promoted", "rolled back"]
    at: str = Field(description="when it became the champion, UTC; empty: not on record")
    reason: str = ""


class TaskRecord(Record):
    """A task with its last run's verdict and its best program so far. rows: of each side, empty
    where it does not load; verdict: null where it was not run yet; problem: why it, or its last
    report, does not load.
    """

    task: str
    rows: dict[str, int] = {}  # noqa: RUF012 (frozen)
    target: float | None = None
    verdict: str | None = None
    score: ScoreRecord | None = Field(default=None, description="on test, of the champion")
    champion: ChampionRecord | None = None
    problem: str | None = None


class Tasks(Record):
    tasks: list[TaskRecord]


def tasks_section(found: Tasks) -> Section:
    """A line a task; what is wrong with one is told under the table."""
    rows = [
        [
            t.task,
            *(str(t.rows.get(side, NONE)) for side in ("train", "val", "test")),
            NONE if t.target is None else f"{t.target:g}",
            t.verdict or ("see below" if t.problem else "not run yet"),
            t.score.with_n if t.score else NONE,
        ]
        for t in found.tasks
    ]
    columns = ("task", "train", "val", "test", "target", "last run", "best program, on test")
    problems = [f"{t.task}: {t.problem}" for t in found.tasks if t.problem]
    chosen = [
        f"{t.task}: {champion_sentence(t.champion)}"
        for t in found.tasks
        if t.champion and t.champion.how != "run"
    ]
    return Section("", [*problems, *chosen], columns, rows)


def champion_sentence(found: ChampionRecord) -> str:
    """Which program is the champion, and why where a person has said so."""
    how = {"run": "by its scores", "hand": "set by hand in MLflow"}.get(found.how, found.how)
    when = f" on {found.at[:10]}" if found.at else ""
    why = f": {visible(found.reason)}" if found.reason else ""
    return f"the champion is version {found.version} (run {found.run[:ID]}), {how}{when}{why}."

"""All tasks at a glance: rows, target and the best program so far."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optimize.data.rows import load_splits
from optimize.errors import WorkbenchError
from optimize.report.record import Report
from optimize.report.tasks import ChampionRecord, TaskRecord, Tasks
from optimize.stats.records import ScoreRecord
from optimize.store.champion import changes, present
from optimize.store.open import client
from optimize.store.read import Found, NoRun, last_run
from optimize.task import load_task, task_names


def overview(root: Path) -> Tasks:
    """Every task; one that does not load says why."""
    return Tasks(tasks=[_record(root, name) for name in task_names(root)])


def _record(root: Path, name: str) -> TaskRecord:
    try:
        task = load_task(name, root)
        sides = load_splits(task).sides()
    except WorkbenchError as error:
        return TaskRecord(task=name, problem=str(error))
    rows = {side: len(rows) for side, rows in sides.items()}
    champion, known = champion_record(root, name), _last(root, name)
    score = _score(root, name, champion.run) if champion else None
    return TaskRecord(
        task=name, rows=rows, target=task.target, champion=champion, score=score, **known
    )


def _score(root: Path, name: str, run: str) -> ScoreRecord | None:
    """On test, of the program that a run kept; None where its report does not say."""
    with suppress(WorkbenchError):
        report: Report = Found(client(root), run, name, run).read("report.json", Report)
        return report.final
    return None


def champion_record(root: Path, name: str) -> ChampionRecord | None:
    """The task's champion and how it became that; None where there is none."""
    store = client(root)
    version = present(store, name)
    if not version:
        return None
    number, log = str(version.version), changes(store, name)
    if not log:  # of a store from before there was a record
        return ChampionRecord(run=version.run_id, version=number, how="run", at="")
    if log[-1].version != number:
        return ChampionRecord(run=version.run_id, version=number, how="hand", at="")
    return ChampionRecord(**asdict(log[-1]))


def _last(root: Path, name: str) -> dict[str, Any]:
    """What the last run found; or why there is nothing to show."""
    try:
        found, _ = last_run(root, name)
    except NoRun:
        return {}
    except WorkbenchError as error:
        return {"problem": str(error)}
    return {"verdict": found.verdict}

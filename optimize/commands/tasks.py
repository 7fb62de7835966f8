"""All tasks at a glance: rows, target and the best program so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimize.data.rows import load_splits
from optimize.errors import WorkbenchError
from optimize.report.tasks import TaskRecord, Tasks
from optimize.store.read import NoRun, last_run
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
    return TaskRecord(task=name, rows=rows, target=task.target, **_last(root, name))


def _last(root: Path, name: str) -> dict[str, Any]:
    """What the last run found; or why there is nothing to show."""
    try:
        found, _ = last_run(root, name)
    except NoRun:
        return {}
    except WorkbenchError as error:
        return {"problem": str(error)}
    return {"verdict": found.verdict, "score": found.final}

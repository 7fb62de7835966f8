"""All tasks at a glance: rows, target and the best program so far."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from optimize.data.rows import load_splits
from optimize.errors import WorkbenchError
from optimize.report.record import Report
from optimize.store.read import last_run
from optimize.task import load_task, task_names


def overview(root: Path) -> Table:
    """One line a task; a task that does not load says why in its line."""
    table = Table(
        "task",
        "train",
        "val",
        "test",
        "target",
        "last run: verdict",
        "score on test",
        box=None,
        pad_edge=False,
    )
    for name in task_names(root):
        try:
            task = load_task(name, root)
            sides = load_splits(task).sides()
        except WorkbenchError as error:
            table.add_row(name, "", "", "", "", str(error), "")
            continue
        found = _last(root, name)
        best = found.final if found else None
        counts = [str(len(rows)) for rows in sides.values()]
        table.add_row(
            name,
            *counts,
            f"{task.target}",
            found.verdict if found else "not run yet",
            best.with_n if best else "–",
        )
    return table


def _last(root: Path, name: str) -> Report | None:
    try:
        return last_run(root, name)[0]
    except WorkbenchError:
        return None

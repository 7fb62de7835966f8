"""All tasks at a glance: rows, target and the best program so far."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from optimize.data.rows import load_splits
from optimize.errors import WorkbenchError
from optimize.store.read import NoRun, last_run
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
        counts = [str(len(rows)) for rows in sides.values()]
        table.add_row(name, *counts, f"{task.target}", *_last(root, name))
    return table


def _last(root: Path, name: str) -> tuple[str, str]:
    """What the last run found, and its score; or why there is nothing to show."""
    try:
        found, _ = last_run(root, name)
    except NoRun:
        return "not run yet", "–"
    except WorkbenchError as error:
        return str(error), "–"
    return found.verdict, found.final.with_n

"""Every run of the store, whatever became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optimize.store.open import client
from optimize.store.read import Found
from optimize.store.tags import PARENT

MOST = 50_000  # runs that MLflow gives at once


@dataclass(frozen=True)
class Listed:
    """A run as the store has it. outcome: of one that makes no program. seconds: None while it is
    running.
    """

    found: Found
    command: str
    status: str
    verdict: str
    outcome: str
    began: datetime
    seconds: float | None
    params: dict[str, str]
    metrics: dict[str, float]


def listed(root: Path, task: str | None = None) -> list[Listed]:
    """The runs of one task, or of all, newest first; none of their rungs."""
    store = client(root)
    experiments = [
        e.experiment_id for e in store.search_experiments() if task is None or e.name == task
    ]
    if not experiments:
        return []
    runs = store.search_runs(
        experiments, "tags.command != ''", max_results=MOST, order_by=["attributes.start_time DESC"]
    )
    whole = [run for run in runs if PARENT not in run.data.tags]
    return [_listed(store, run) for run in whole]


def _listed(store: Any, run: Any) -> Listed:
    info, tags = run.info, run.data.tags
    return Listed(
        Found(store, info.run_id, tags.get("task", ""), info.run_id[:8]),
        tags["command"],
        info.status,
        tags.get("verdict", ""),
        tags.get("outcome", ""),
        datetime.fromtimestamp(info.start_time / 1000, UTC),
        (info.end_time - info.start_time) / 1000 if info.end_time else None,
        run.data.params,
        run.data.metrics,
    )

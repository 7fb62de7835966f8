"""Names of runs and rungs for the shell, out of the database's file: MLflow takes a second to load.

A store that cannot be read has none.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from optimize.store.open import is_shared

ID, MOST = 8, 20  # letters of an id, as lists show it; ids, newest first
RUNS = """
select substr(r.run_uuid, 1, ?) from runs r join tags t on t.run_uuid = r.run_uuid
where t.key = 'command' and r.lifecycle_stage = 'active' and r.run_uuid like ? || '%'
order by r.start_time desc limit ?"""
RUNGS = """
select distinct p.value from params p join runs r on r.run_uuid = p.run_uuid
join experiments e on e.experiment_id = r.experiment_id
where p.key = 'rung' and e.name = ? and r.lifecycle_stage = 'active' order by p.value"""


def run_ids(root: Path, begun: str) -> list[str]:
    """The runs whose id begins so; none where nothing is begun, since nobody knows ids by heart."""
    return _column(root, RUNS, ID, begun, MOST) if begun.isalnum() else []


def rung_names(root: Path, task: str) -> list[str]:
    """The rungs that runs of the task have tried."""
    return _column(root, RUNGS, task)


def _column(root: Path, query: str, *given: str | int) -> list[str]:
    path = root / "mlruns" / "mlflow.db"
    if is_shared() or not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return [str(value) for (value,) in database.execute(query, given)]
    except sqlite3.Error:
        return []

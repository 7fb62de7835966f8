"""A sweep in the project's store: an experiment of its own, a run of it, a nested run a cell.

The cells' own runs, with their rungs and rows, lie in stores of their own; these runs link to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from optimize.report.sweep import CellRecord, SweepRecord
from optimize.store.experiment import experiment
from optimize.store.open import client
from optimize.store.shown import rounded
from optimize.store.tags import NAME, NOTE, OF_EXPERIMENT, PARENT, STARTED


def put_cells(root: Path, folder: Path, cells: Iterable[CellRecord]) -> str:
    """Put cells on record, or what is new of them; the id of the sweep's run. folder: the sweep's,
    with a cell's home in each of its folders.
    """
    store = client(root)
    with FileLock(folder / "store.lock"):  # jobs that end at once would make two runs of it
        where = experiment(store, root, f"sweep-{folder.name}", OF_EXPERIMENT)
        parent = _run(store, where, f"tags.sweep = '{folder.name}'", folder.name)
        for name, value in {"sweep": folder.name, **STARTED}.items():
            store.set_tag(parent, name, value)
        for cell in cells:
            if cell.found or cell.error:
                _put(store, where, parent, folder, cell)
    return parent


def put_sweep(root: Path, folder: Path, record: SweepRecord, note: str, page: Path) -> None:
    """What they say together. note: as Markdown. page: the comparison."""
    store, run = client(root), record.run
    outcome = {"outcome": record.outcome, NAME: f"{record.name}: {record.outcome}", NOTE: note}
    for name, value in outcome.items():
        store.set_tag(run, name, value)
    store.log_metric(run, "used_calls", record.calls)
    store.log_metric(run, "used_usd", rounded(record.usd))
    store.log_text(run, record.model_dump_json(indent=1), "sweep.json")
    store.log_artifact(run, str(page))
    store.set_terminated(run, "FINISHED")


def _run(store: Any, where: str, known: str, name: str) -> str:
    """The run that is found by that, or a new one."""
    found = store.search_runs([where], known, max_results=1)
    if found:
        return str(found[0].info.run_id)
    return str(store.create_run(where, run_name=name).info.run_id)


def _put(store: Any, where: str, parent: str, folder: Path, cell: CellRecord) -> None:
    """A cell's nested run, once for each state of its inputs."""
    known = f"tags.cell = '{cell.id}' and tags.inputs = '{cell.inputs}'"
    run = _run(store, where, known, cell.id)
    told = {"task": cell.task, "lm": cell.lm, "seed": str(cell.seed)}
    tags = {PARENT: parent, "cell": cell.id, "inputs": cell.inputs, **STARTED}
    tags |= {NAME: f"{cell.task}, {cell.setting}, seed {cell.seed}", "outcome": cell.outcome}
    tags |= {"setting": cell.setting, "home": str(folder / cell.id), NOTE: f"`{cell.command}`"}
    if cell.error:
        tags["error"] = cell.error
    for name, value in told.items():
        store.log_param(run, name, value)
    numbers = {"used_calls": cell.calls, "used_usd": cell.usd, "used_seconds": cell.seconds}
    if found := cell.found:
        tags |= {"verdict": found.verdict, "target_met": str(found.target_met), "run": found.run}
        numbers |= {"score": found.test.score, "score_low": found.test.low}
        numbers |= {"score_high": found.test.high, "score_val": found.val.score}
        numbers |= {"score_zero_shot": found.zero_shot.score}
    for name, number in numbers.items():
        store.log_metric(run, name, rounded(number))
    for name, value in tags.items():
        store.set_tag(run, name, value)
    store.log_text(run, cell.model_dump_json(indent=1), "cell.json")
    store.set_terminated(run, "FINISHED" if cell.found else "FAILED")

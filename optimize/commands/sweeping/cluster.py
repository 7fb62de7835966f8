"""Cells on Ray: on this machine, or on a cluster that is up.

A cell is a Ray task in a fresh process: an LM in the process, DSPy's settings and the meter are
those of one run, and end with it. Ray gives it to another worker when its own is lost; what goes
wrong in the run itself is the cell's record, and never raised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.climb.observer import Observer
from optimize.commands.cluster import Asked, connected, ledger_actor
from optimize.commands.sweeping.cell import ledger_of, run_cell
from optimize.commands.sweeping.plan import Sweep, read_sweep
from optimize.errors import StoreFailed
from optimize.report.sweep import CellRecord


@dataclass(frozen=True)
class Lost:
    """A cell that Ray has given up."""

    number: int
    why: str


def run_cells(
    sweep: Sweep, numbers: Sequence[int], address: str | None
) -> Iterator[CellRecord | Lost]:
    """The cells' records in the order in which they end.

    address: of a cluster that is up; None: one on this machine, for as long as this takes. Raises
    WorkbenchError where Ray is not installed or not reached.
    """
    instead = (
        f"Without it `optimize sweep {sweep.path.name} --cell N` runs one cell; docs/sweep.md "
        "shows how to run them as jobs."
    )
    with connected(f"optimize {sweep.folder}", address, instead) as ray:
        ledger = ledger_actor(ray, ledger_of(sweep))
        work = _task(ray, sweep)
        at_work = {
            work.remote(str(sweep.root), str(sweep.path), number, ledger): number
            for number in numbers
        }
        while at_work:
            (ended, *_), _ = ray.wait(list(at_work), num_returns=1)
            number = at_work.pop(ended)
            try:
                yield CellRecord.model_validate_json(ray.get(ended))
            except ray.exceptions.RayTaskError as error:
                yield Lost(number, f"Its worker could not run it: {error.cause}")
            except ray.exceptions.RayError as error:
                tries, why = sweep.file.share.retries + 1, str(error).strip().split("\n")[0]
                yield Lost(number, f"Its worker was lost {tries} times: {why[:300]}")


def _task(ray: Any, sweep: Sweep) -> Any:
    share = sweep.file.share
    memory = int(share.memory_gb * 2**30) if share.memory_gb else None
    options = {
        "num_cpus": share.cpus,
        "num_gpus": share.gpus,
        "memory": memory,
        "max_calls": 1,  # a process for one cell alone
        "max_retries": share.retries,
        "retry_exceptions": False,
        "scheduling_strategy": "SPREAD",
    }
    return ray.remote(**options)(_cell)


def _cell(root: str, path: str, number: int, actor: Any) -> str:
    """A cell in a worker; its record as JSON. The file is read anew: the machine may be another."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.chdir(root)
    sweep = read_sweep(Path(root), Path(path))
    try:
        return run_cell(sweep, sweep.cells[number], Asked(actor), Observer()).model_dump_json()
    except StoreFailed as error:  # a BaseException, which Ray would take for the worker's end
        raise RuntimeError(str(error)) from None

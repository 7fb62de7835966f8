"""Cells on Ray: on this machine, or on a cluster that is up. The only module that knows Ray.

A cell is a Ray task in a fresh process: an LM in the process, DSPy's settings and the meter are
those of one run, and end with it. Ray gives it to another worker when its own is lost; what goes
wrong in the run itself is the cell's record, and never raised.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.climb.observer import Observer
from optimize.commands.sweeping.budget import Ledger
from optimize.commands.sweeping.cell import ledger_of, run_cell
from optimize.commands.sweeping.plan import Sweep, read_sweep
from optimize.errors import StoreFailed, WorkbenchError
from optimize.report.sweep import CellRecord
from optimize.threads import usable_cores

STORE_BYTES = 80 << 20  # of Ray's object store, which holds records of cells alone
LOOPBACK = ("127.", "localhost", "[::1]")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "300",  # a busy machine takes longer than Ray's 10
}
# the name is Ray's, for the systems that it was made for: loopback addresses stay what they are
STAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


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
    with _connected(sweep, address) as ray:
        ledger = _ledger(ray, sweep)
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


@contextlib.contextmanager
def _connected(sweep: Sweep, address: str | None) -> Iterator[Any]:
    local = address is None or address.startswith(LOOPBACK)
    os.environ.update(QUIET | (STAY_ON_LOOPBACK if local else {}))
    try:
        import ray
    except ImportError:
        raise WorkbenchError(
            "Ray is not installed: pip install 'optimize-workbench[ray]'. Without it `optimize "
            f"sweep {sweep.path.name} --cell N` runs one cell; docs/sweep.md shows how to run them "
            "as jobs."
        ) from None
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": usable_cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(**options, namespace=_namespace(sweep), log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises it bare where it has waited in vain
        where = address or "this machine"
        raise WorkbenchError(f"No Ray at {where}: {str(error).strip()[:300]}") from error
    # what Ray prints of lost workers, its raylets' last words among it, is in its logs too
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            yield ray
        finally:
            ray.shutdown()


def _namespace(sweep: Sweep) -> str:
    return f"optimize {sweep.folder}"


def _ledger(ray: Any, sweep: Sweep) -> Any:
    """The actor that hands out calls. It lives beside this command, and as long; what it has
    granted is in a file.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    kind = ray.remote(Ledger).options(
        name="budget",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,  # what is granted twice goes back when the cell ends
        scheduling_strategy=here,
    )
    known = ledger_of(sweep)
    return kind.remote(known.path, known.calls, known.usd)


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
        return run_cell(sweep, sweep.cells[number], _Asked(actor), Observer()).model_dump_json()
    except StoreFailed as error:  # a BaseException, which Ray would take for the worker's end
        raise RuntimeError(str(error)) from None


class _Asked:
    """A ledger behind an actor. Asked in a thread of its own: while a task's main thread waits for
    Ray, Ray gives its cores to another task, and both would go on.
    """

    def __init__(self, actor: Any) -> None:
        self.actor, self.aside = actor, ThreadPoolExecutor(1)

    def claim(self, cell: str, spent: int, usd: float) -> None:
        self._told("claim", cell, spent, usd)

    def close(self, cell: str, spent: int, usd: float) -> None:
        self._told("close", cell, spent, usd)

    def more(self, cell: str, spent: int, usd: float, least: int) -> int:
        return int(self._told("more", cell, spent, usd, least))

    def _told(self, method: str, *given: Any) -> Any:
        import ray

        def ask() -> Any:
            return ray.get(getattr(self.actor, method).remote(*given))

        return self.aside.submit(ask).result()

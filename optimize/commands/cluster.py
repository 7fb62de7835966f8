"""Ray, on this machine or on a cluster that is up: reached, one ledger for all of its workers, and
work handed to as many of them as are wanted. The only module that knows Ray.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from optimize.commands.budget import Drawn, Ledger
from optimize.errors import WorkbenchError
from optimize.lm.reach import unreachable
from optimize.threads import usable_cores

STORE_BYTES = 80 << 20  # of Ray's object store, which holds records of work alone
LOOPBACK = ("127.", "localhost", "[::1]")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "300",  # a busy machine takes longer than Ray's 10
    # what its own code prints beside Python's loggers
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# the name is Ray's, for the systems that it was made for: loopback addresses stay what they are
STAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def is_here(address: str | None) -> bool:
    """Whether workers at that address share this machine's files."""
    return address is None or address.startswith(LOOPBACK)


def check_ray(address: str | None, instead: str) -> None:
    """Raises WorkbenchError where Ray is not installed, or nothing listens at the address. instead:
    what to do without it.
    """
    if importlib.util.find_spec("ray") is None:
        raise WorkbenchError(
            f"Ray is not installed: pip install 'optimize-workbench[ray]'. {instead}"
        )
    host = (address or "").rpartition("//")[2]
    if ":" in host and (problem := unreachable(f"tcp://{host}")):
        raise WorkbenchError(f"No Ray at {address}: {problem}. Its head's `ray status` tells more.")


@contextlib.contextmanager
def connected(
    namespace: str, address: str | None, instead: str, cpus: int | None = None
) -> Iterator[Any]:
    """Ray's module, while it is up.

    address: of a cluster; None: one on this machine, for as long as this takes, that has so many
    `cpus` to give (default: the cores there are). instead: what to do without Ray. Raises
    WorkbenchError where Ray is not installed or not reached.
    """
    check_ray(address, instead)
    os.environ.update(QUIET | (STAY_ON_LOOPBACK if is_here(address) else {}))
    import ray

    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": cpus or usable_cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        with _hushed():
            ray.init(**options, namespace=namespace, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises it bare where it has waited in vain
        where = address or "this machine"
        raise WorkbenchError(f"No Ray at {where}: {str(error).strip()[:300]}") from error
    # what Ray prints of lost workers, its raylets' last words among it, is in its logs too
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without what compiled code writes to stderr: Ray's says there how loud it was told to be."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def ledger_actor(ray: Any, known: Ledger) -> Any:
    """The actor that hands out calls. It lives beside this command, and as long; what it has
    granted is in the file of the ledger that it is made after.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    kind = ray.remote(Ledger).options(
        name="budget",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,  # what is granted twice goes back when the work ends
        scheduling_strategy=here,
    )
    return kind.remote(known.path, known.calls, known.caps["usd"], known.caps["tokens"])


class Asked:
    """A ledger behind an actor. Asked in a thread of its own: while a task's main thread waits for
    Ray, Ray gives its cores to another task, and both would go on.
    """

    def __init__(self, actor: Any) -> None:
        self.actor, self.aside = actor, ThreadPoolExecutor(1)

    def claim(self, name: str, drawn: Drawn) -> None:
        self._told("claim", name, drawn)

    def close(self, name: str, drawn: Drawn) -> None:
        self._told("close", name, drawn)

    def more(self, name: str, drawn: Drawn, least: int) -> int:
        return int(self._told("more", name, drawn, least))

    def _told(self, method: str, *given: Any) -> Any:
        import ray

        def ask() -> Any:
            return ray.get(getattr(self.actor, method).remote(*given))

        return self.aside.submit(ask).result()


def worker_name() -> str:
    """What this worker is called; the same when Ray starts it anew after it was lost."""
    import ray

    return str(ray.get_runtime_context().get_actor_id())


def workers_at(ray: Any, address: str, wanted: int | None) -> int:
    """How many workers the cluster is to have, one CPU each; by default all there are.

    Raises WorkbenchError where it has fewer: they would be waited for in vain.
    """
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < (wanted or 1):
        raise WorkbenchError(
            f"Ray at {address} has {there} CPUs, and each worker takes one; give --workers "
            f"{there} or fewer, or add machines."
        )
    return wanted or there


def spread(
    ray: Any, work: type, given: Sequence[Any], items: Sequence[Mapping[str, Any]], workers: int
) -> Iterator[Mapping[str, Any]]:
    """What `work(*given)` makes of each item, by Ray Data, in the order in which they are done.

    work: has one object a worker, which is called with an item's columns as arrays of one value,
    and gives the like back. An item whose worker is lost is given to another one. Raises
    WorkbenchError where Ray has given up.
    """
    from ray import data

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    made = data.from_items(list(items), override_num_blocks=len(items)).map_batches(
        work,
        fn_constructor_args=list(given),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    try:
        yield from made.iter_rows()
    except ray.exceptions.RayTaskError as error:
        raise WorkbenchError(f"A worker could not go on: {error.cause}") from error
    except ray.exceptions.RayError as error:
        why = str(error).strip().split("\n")[0]
        raise WorkbenchError(f"Ray has given up: {why[:300]}") from error

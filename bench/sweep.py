"""A sweep on two Ray nodes on loopback, one of them killed mid-way, against the same sweep on one
machine, cell after cell.

    python -m bench.sweep [--tasks 3] [--lms 2] [--seeds 3]

The node is killed when two cells are in the midst of their calls. Printed: whether the results are
equal, how many requests were sent that the undisturbed sweep did not send, and whether the budget
was kept. The LMs are scripted servers over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from bench.crash import answer
from optimize.climb.observer import Observer
from optimize.commands.budget import read_drawn
from optimize.commands.cluster import QUIET, STAY_ON_LOOPBACK
from optimize.commands.new import write_task
from optimize.commands.sweep import sweep_one
from optimize.commands.sweeping.cell import RECORD, SPENT
from optimize.commands.sweeping.plan import read_sweep
from tests.faulty_server import faulty_app
from tests.test_lm import served

NAMES = ("alpha", "beta", "gamma", "delta")
IN_FLIGHT = 2  # calls of a cell
CALLS = 600  # of a cell, more than one takes: how far a cap lets it come hangs on what others paid
MIDWAY = 8  # calls after which a cell is in the midst of them
SECONDS = 0.02  # that an answer takes


@dataclass(frozen=True)
class Found:
    """What the killed sweep was, beside the undisturbed one. twice: requests that it sent beyond
    those. written: calls that cells have written down. in_flight: calls that the killed node may
    have had in flight.
    """

    cells: int
    equal: int
    undisturbed: int
    requests: int
    twice: int
    written: int
    budget: int
    in_flight: int
    code: int


def project(root: Path, tasks: int) -> None:
    (root / "programs").mkdir(parents=True)
    for name in NAMES[:tasks]:
        write_task(root, name)
        path = root / "programs" / f"{name}.py"
        text = path.read_text().replace("Judge the review.", f"Judge the review for {name}.")
        path.write_text(text)


def sweep_file(root: Path, urls: list[str], tasks: int, seeds: int, budget: int) -> Path:
    lms = ", ".join(
        f'{{lm = "openai/lm{n}", api_base = "{url}/v1", threads = {IN_FLIGHT}}}'
        for n, url in enumerate(urls)
    )
    path = root / "small.toml"
    path.write_text(
        f"tasks = {json.dumps(NAMES[:tasks])}\nlms = [{lms}]\nseeds = {list(range(seeds))}\n"
        f'grid = {{finetune = "never", target = 0.99}}\nlimits = {{max_calls = {CALLS}}}\n'
        f"budget = {{calls = {budget}}}\n"
    )
    return path


def told(record: dict[str, Any]) -> Any:
    """What must be the same: all but ids, and a price that is known where an answer was paid."""
    found = record["found"]
    return found and {k: v for k, v in found.items() if k not in ("run", "price")}


def one_machine(root: Path, path: Path) -> list[dict[str, Any]]:
    """The cells' records, each run in this process."""
    sweep = read_sweep(root, path)
    out = []
    for cell in sweep.cells:
        out.append(sweep_one(sweep, cell.number, Observer()).model_dump(mode="json"))
        print(f"one machine: cell {cell.number} {out[-1]['calls']} calls", flush=True)
    return out


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes with a core each, on loopback; its address and what kills one."""
    os.environ.update(QUIET | STAY_ON_LOOPBACK)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = cluster.add_node(**node)
    try:
        yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        cluster.shutdown()


def at_work(folder: Path) -> list[Path]:
    """Homes of cells that are in the midst of their calls."""
    homes = [path.parent for path in folder.glob(f"*/{SPENT}")]
    open_ = [home for home in homes if not (home / RECORD).exists()]
    return [home for home in open_ if read_drawn(home / SPENT).calls >= MIDWAY]


def killed_midway(root: Path, path: Path) -> tuple[dict[str, Any], int]:
    """The record of the sweep and its exit code; a node is killed once two cells are at work."""
    with two_nodes() as (address, kill):
        command = [sys.executable, "-m", "optimize", "sweep", path.name, "--json"]
        running = subprocess.Popen(
            [*command, "--address", address],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        folder = root / "mlruns" / "sweeps" / path.stem
        while running.poll() is None and len(at_work(folder)) < 2:
            time.sleep(0.02)
        print(f"killed while {[home.name for home in at_work(folder)]} were at work", flush=True)
        kill()
        out, said = running.communicate()
        print(said, flush=True)
    return json.loads(out), running.returncode


def counted(apps: list[FastAPI]) -> Counter[tuple[int, str]]:
    """How often each LM was asked each prompt; from now on it starts at none."""
    found = Counter((n, asked.text) for n, app in enumerate(apps) for asked in app.state.log)
    for app in apps:
        app.state.log.clear()
    return found


def scenario(folder: Path, tasks: int, lms: int, seeds: int) -> Found:
    apps = [faulty_app(answer, lambda asked: "", SECONDS) for _ in range(lms)]
    cells = tasks * lms * seeds
    budget = cells * CALLS
    with ExitStack() as stack:
        urls = [stack.enter_context(served(app)) for app in apps]
        paths = []
        for name in ("one", "two"):
            project(folder / name, tasks)
            paths.append(sweep_file(folder / name, urls, tasks, seeds, budget))
        expected = one_machine(folder / "one", paths[0])
        undisturbed = counted(apps)
        found, code = killed_midway(folder / "two", paths[1])
        requests = counted(apps)
    same = [told(a) == told(b) for a, b in zip(expected, found["cells"], strict=True)]
    return Found(
        cells=cells,
        equal=sum(same),
        undisturbed=undisturbed.total(),
        requests=requests.total(),
        twice=(requests - undisturbed).total(),
        written=found["calls"],
        budget=budget,
        in_flight=IN_FLIGHT,
        code=code,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, number in (("--tasks", 3), ("--lms", 2), ("--seeds", 3)):
        parser.add_argument(name, type=int, default=number)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(scenario(Path(folder), given.tasks, given.lms, given.seeds))


if __name__ == "__main__":
    main()

"""What tracking costs a climb: the seconds inside the store's methods, for which it waits, against
its seconds without them, in one run. `python -m bench.tracking [--rate 100] [--max-calls 5000]`

A server of its own answers so late that 16 threads make about `--rate` calls a second. Importing
MLflow and making the store's tables, once a project, are not counted; they are told beside it.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.throughput import server, write_project
from optimize.climb.observer import Observer
from optimize.commands.run import run
from optimize.commands.session import open_session
from optimize.config import RunConfig
from optimize.store.open import client
from optimize.store.write import Run
from tests.test_lm import served

THREADS = 16
METHODS = ("__init__", "__exit__", "finished", "decided", "scores", "settle", "register", "attach")


def timed(spent: Counter[str]) -> None:
    """Count the seconds of each of the store's methods."""

    def measuring(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def measured(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                spent[name] += time.perf_counter() - start

        return measured

    for name in METHODS:
        setattr(Run, name, measuring(name, getattr(Run, name)))


class Told(Observer):
    def started(self, rung: str) -> None:
        print(rung, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--max-calls", type=int, default=5000)
    given = parser.parse_args()
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, served(server(THREADS / given.rate)) as url:
        root, start = Path(folder), time.perf_counter()
        write_project(root)
        client(root)
        print(f"import and tables: {time.perf_counter() - start:.1f} s")
        timed(spent)
        config = RunConfig(
            lm="openai/slow",
            api_base=f"{url}/v1",
            threads=THREADS,
            max_calls=given.max_calls,
            finetune="never",
        )
        start = time.perf_counter()
        report = run(open_session(root, "route", config, Told()))
        took = time.perf_counter() - start
    own = sum(spent.values())
    print(f"{report.lm_calls} calls, {report.lm_calls / (took - own):.0f} a second")
    print(
        f"{took:.1f} s, of which tracking {own:.2f} s: {own / (took - own):.1%} more than without"
    )
    for name, seconds in spent.most_common():
        print(f"{name:10} {seconds:6.2f} s")


if __name__ == "__main__":
    main()

"""What tracking costs a climb: the seconds inside the store's methods, for which it waits, against
those that its calls take at a rate. `python -m bench.tracking [--rate 100] [--max-calls 5000]`

Told by the clock and by the processor's time, which neighbours on a busy machine do not change. A
server of its own answers at that rate to 16 threads. Importing MLflow and making the store's
tables, once a project, are told apart.
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
BESIDE = "_write_attempt"  # in a thread of its own, while the next lever's calls are made


def timed(spent: Counter[str], worked: Counter[str]) -> None:
    """Count the seconds of each of the store's methods: by the clock, and of the processor."""

    def measuring(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def measured(*given: Any, **named: Any) -> Any:
            start, work = time.perf_counter(), time.thread_time()
            try:
                return method(*given, **named)
            finally:
                spent[name] += time.perf_counter() - start
                worked[name] += time.thread_time() - work

        return measured

    for name in (*METHODS, BESIDE):
        setattr(Run, name, measuring(name, getattr(Run, name)))


class Told(Observer):
    def started(self, rung: str) -> None:
        print(rung, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--max-calls", type=int, default=5000)
    given = parser.parse_args()
    spent, worked = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder, served(server(THREADS / given.rate)) as url:
        root, start = Path(folder), time.perf_counter()
        write_project(root)
        client(root)
        print(f"import and tables: {time.perf_counter() - start:.1f} s")
        timed(spent, worked)
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
    beside, _ = worked.pop(BESIDE), spent.pop(BESIDE)
    own, work, calls = sum(spent.values()), sum(worked.values()), report.lm_calls
    print(f"{calls} calls in {took:.1f} s, {calls / (took - own):.0f} a second without tracking")
    print(f"by the clock: {own:.2f} s, {own / (took - own):.1%} more than without")
    ideal = calls / given.rate
    print(
        f"processor: {work:.2f} s waited for, {work / ideal:.1%} of {ideal:.0f} s at "
        f"{given.rate:.0f} a second; {beside:.2f} s beside the calls"
    )
    for name, seconds in worked.most_common():
        print(f"{name:10} {seconds:6.2f} s")


if __name__ == "__main__":
    main()

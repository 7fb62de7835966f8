"""Local LMs of several processes on the same cores: in turns, and as they would without.

    python -m bench.turns [--calls 48] [--processes 2] [--json]

Each process asks the embedded LM the same number of short questions, four side by side. What is
told is how many times as long all of them take as one alone; the aim is 1.2 times their number.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ASK = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from optimize import lm as lms, turns
from optimize.config import RunConfig
from optimize.lm.meter import Meter
if sys.argv[1] == "without":
    turns.Turns.enter, turns.Turns.leave = lambda self: 0.0, lambda self: None
lms.configure(Path(sys.argv[2]))
lm = lms.task_lm(RunConfig(), Meter(10_000), 12)
lm("warm up")
print("ready", flush=True)
sys.stdin.readline()
def ask(n):
    return lm(f"Customer {n} of {sys.argv[2]} wrote. " + "Name a river. " * 40)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(ask, range(int(sys.argv[3]))))
"""


def seconds(kind: str, processes: int, calls: int) -> float:
    """From the first question to the last answer of all of them."""
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for number in range(processes):
            command = [sys.executable, "-c", ASK, kind, str(Path(folder) / str(number)), str(calls)]
            started.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for process in started:
            assert process.stdout and process.stdout.readline() == "ready\n"
        begin = time.perf_counter()
        for process in started:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        assert not any([process.wait() for process in started])
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=48)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    alone = seconds("turns", 1, given.calls)
    rows = [{"how": "one alone", "processes": 1, "seconds": alone, "times": 1.0}]
    for kind, how in (("turns", "in turns"), ("without", "without turns")):
        took = seconds(kind, given.processes, given.calls)
        rows.append(
            {"how": how, "processes": given.processes, "seconds": took, "times": took / alone}
        )
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    print("| | processes | seconds | times one alone |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['how']} | {row['processes']} | {row['seconds']:.1f} | {row['times']:.2f} |")


if __name__ == "__main__":
    main()

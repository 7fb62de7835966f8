"""`optimize apply --ray`: rows a second against workers, and against what the LM's time allows.

    python -m bench.apply_ray [--workers 1 2 4] [--threads 4] [--seconds 0.2] [--rows 400]

A server of its own answers after so many seconds. The limit is workers × threads / seconds. Rows a
second are those of the middle half of the workers' requests, as the server sees them; what it takes
until the first of them (Ray, a process a worker, its imports) stands beside it. The first line is
the command without Ray, with as many threads as one worker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet

from bench.apply import answer
from optimize.commands.apply import PILOT
from optimize.commands.new import write_task
from tests.faulty_server import Asked, faulty_app
from tests.test_lm import served


def measured(root: Path, url: str, times: list[float], given: argparse.Namespace, n: int) -> str:
    """A line of the table. n: workers; 0: without Ray."""
    rows = PILOT + given.rows * max(1, n)
    texts = [f"Review {n} of row {number}." for number in range(rows)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), root / "in.parquet")
    command = [sys.executable, "-m", "optimize", "apply", "review", "in.parquet"]
    command += ["-o", f"out{n}", "--lm", "openai/any", "--api-base", f"{url}/v1"]
    command += ["--threads", str(given.threads), *(["--ray", "--workers", str(n)] if n else [])]
    times.clear()
    began = time.monotonic()
    # Ray's workers step back for all other work of a machine, which would be measured here
    env = os.environ | {"RAY_worker_niceness": "0"}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    found = pyarrow.parquet.read_table(root / f"out{n}").num_rows
    assert found == len(times) == rows, (found, len(times), rows)
    asked = sorted(times[PILOT:])
    quarter = len(asked) // 4
    rate = (len(asked) - 2 * quarter) / (asked[-quarter] - asked[quarter])
    limit = max(1, n) * given.threads / given.seconds
    pause = asked[0] - times[PILOT - 1]
    cells = [str(n) if n else "without Ray", f"{limit:.0f}", f"{rate:.1f}", f"{rate / limit:.0%}"]
    return " | ".join(["", *cells, f"{pause:.0f}", f"{took:.0f}", f"{rows:,}", ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--rows", type=int, default=400, help="a worker, beside the pilot")
    given = parser.parse_args()
    times: list[float] = []

    def note(asked: Asked) -> str:
        times.append(time.monotonic())
        return ""

    print("| workers | rows/s at most | rows/s | share | s until the first | s in all | rows |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with (
        tempfile.TemporaryDirectory() as folder,
        served(faulty_app(answer, note, given.seconds)) as url,
    ):
        root = Path(folder)
        (root / "programs").mkdir()
        write_task(root, "review")
        for n in [0, *given.workers]:
            print(measured(root, url, times, given, n), flush=True)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

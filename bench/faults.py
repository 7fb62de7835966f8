"""What becomes of an evaluation when a server fails in one way: one request in ten, always the same
rows, one in ten, or every request.

    python -m bench.faults [--rows 60] [--threads 16] [--faults NAME …]

Prints a table: what the user is told, calls sent, seconds, rows with a score, and the score against
that of the same server without faults.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path

import dspy

from bench.soak import COLOURS, rows_of
from optimize import lm as lms
from optimize.config import RunConfig
from optimize.errors import LmRefused, WorkbenchError
from optimize.lm.meter import Meter
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from tests.faulty_server import FAULTS, Asked, drawn, faulty_app
from tests.test_lm import colour_task, served


def answer(text: str) -> str:
    colour = COLOURS[zlib.crc32(text.encode()) % 3]
    return f"[[ ## colour ## ]]\n{colour}\n\n[[ ## completed ## ]]"


def tried(fault: str, share: float, of_rows: bool, count: int, threads: int) -> list[str]:
    """A row of the table. of_rows: a row that meets the fault meets it again."""

    def met(asked: Asked) -> str:
        return fault if drawn(replace(asked, number=0) if of_rows else asked) < share else ""

    task, meter = colour_task(), Meter(100 * count)
    rows = rows_of(range(count))
    said, found, start = "", None, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, served(faulty_app(answer, met, 0.02)) as url:
        lms.configure(Path(folder))
        lm = lms.resolve("openai/any", f"{url}/v1", RunConfig(timeout=5), meter, 40)
        try:
            with dspy.context(lm=lm):
                found = evaluate(student(task), rows, Asking(task, threads))
        except (WorkbenchError, LmRefused) as error:
            said = str(error)[:90]
    seconds = time.monotonic() - start
    score = f"{found.interval.mean:.2f}" if found else "none"
    coverage = f"{count - found.missing} of {count}" if found else "none"
    coverage += f", {found.unread} too long" if found and found.unread else ""
    name = f"{fault}, {share:.0%}{' of the rows' if of_rows else ''}" if fault else "no fault"
    return [name, said or "a score", str(meter.usage().calls), f"{seconds:.0f}", coverage, score]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--faults", nargs="+", default=[*FAULTS, "hangs"])
    given = parser.parse_args()
    print("| fault | the user is told | calls | seconds | rows with a score | score |")
    print("|" + " --- |" * 6)
    ways = (0.1, False), (0.1, True), (1.0, False)
    cases = [("", 0.0, False), *((fault, *way) for fault in given.faults for way in ways)]
    for case in cases:
        print(f"| {' | '.join(tried(*case, given.rows, given.threads))} |", flush=True)


if __name__ == "__main__":
    main()

"""A long evaluation against a server that fails one request in ten, in every way that passes.

    python -m bench.soak [--calls 20000] [--threads 64] [--faults 0.1] [--files 256]

The server runs in a process of its own and counts what reaches it. Printed: calls by our meter and
by the server's log, scores with and without faults, memory and open files as it goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path

import dspy
from fastapi import FastAPI

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.lm.meter import Meter
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from tests.faulty_server import Asked, drawn, faulty_app
from tests.test_lm import colour_task, served

MET = ("empty content", "null content", "no choices", "error with 200", "no JSON", "500", "503")
MET += ("429", "hangs up")
COLOURS = ("red", "green", "blue")


def number(text: str) -> int:
    return zlib.crc32(text.split("thing ## ]]")[-1].split("Respond")[0].strip().encode())


def answer(text: str) -> str:
    return f"[[ ## colour ## ]]\n{COLOURS[number(text) % 3]}\n\n[[ ## completed ## ]]"


def rows_of(numbers: range) -> list[dspy.Example]:
    return [
        dspy.Example(thing=f"thing {n}", colour=COLOURS[n % 3]).with_inputs("thing")
        for n in numbers
    ]


def app_of(faults: float) -> FastAPI:
    def fault(asked: Asked) -> str:
        return MET[asked.number % len(MET)] if drawn(asked) < faults else ""

    app = faulty_app(answer, fault, seconds=0.05)

    @app.get("/log")
    def log() -> dict[str, int]:
        return {"sent": len(app.state.log), "faults": sum(bool(a.fault) for a in app.state.log)}

    return app


def serve(faults: float, told: multiprocessing.Queue[str]) -> None:
    with served(app_of(faults)) as url:
        told.put(url)
        time.sleep(1e6)


def memory() -> int:
    """MB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


def soak(faults: float, calls: int, threads: int) -> tuple[float, ...]:
    told: multiprocessing.Queue[str] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(faults, told), daemon=True)
    server.start()
    url = told.get()
    task, meter, scores = colour_task(), Meter(10 * calls), []
    with tempfile.TemporaryDirectory() as folder:
        lms.configure(Path(folder))
        lm = lms.resolve("openai/any", f"{url}/v1", RunConfig(), meter, 40)
        start = time.monotonic()
        for part in range(0, calls, 1000):
            rows = rows_of(range(part, min(part + 1000, calls)))
            with dspy.context(lm=lm):
                scores += evaluate(student(task), rows, Asking(task, threads)).scores
            files = len(os.listdir("/proc/self/fd"))
            print(f"{len(scores)} rows: {memory()} MB, {files} files", flush=True)
        log = json.load(urllib.request.urlopen(f"{url}/log"))
        usage, seconds = meter.usage(), time.monotonic() - start
    server.kill()
    print(
        f"faults {faults:.0%}: {usage.calls} calls by the meter, {log['sent']} by the server, "
        f"{usage.failed} failed of {log['faults']} faults, {scores.count(None)} rows missing, "
        f"{seconds:.0f} s"
    )
    return tuple(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--faults", type=float, default=0.1)
    parser.add_argument("--files", type=int, default=256)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (given.files, hard))
    found = [soak(faults, given.calls, given.threads) for faults in (given.faults, 0.0)]
    print("the same scores" if found[0] == found[1] else "OTHER SCORES")


if __name__ == "__main__":
    main()

"""What several endpoints of one LM give: throughput against the ideal, and what becomes of a run
when one of them dies and comes back, is always too busy, or hangs.

    python -m bench.endpoints [--rows 500] [--threads 24] [--json]

Each endpoint is a process of its own with so many slots, as an inference server has them: a request
waits for a slot and then takes its seconds. Ideal: the sum of slots / seconds of those that answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import dspy
import httpx
import uvicorn
from fastapi import FastAPI, Response

from bench.soak import rows_of
from optimize import lm as lms
from optimize.config import RunConfig
from optimize.lm.meter import Meter
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from tests.test_lm import colour_task, completion

SLOTS = 8
RED = "[[ ## colour ## ]]\nred\n\n[[ ## completed ## ]]"
DIES, DOWN = 8.0, 6.0  # seconds after which one dies, and for which it is gone
TIMEOUT = 8.0
# of three endpoints, the seconds a request takes at each
CASES: dict[str, tuple[float, float, float]] = {
    "all alike, 1.5 s": (1.5, 1.5, 1.5),
    "0.75, 1.5 and 3 s": (0.75, 1.5, 3.0),
    "one dies after 8 s and is back 6 s later": (1.5, 1.5, 1.5),
    "one answers 429 all the time": (1.5, 1.5, 1.5),
    "one hangs all the time (--timeout 8)": (1.5, 1.5, 1.5),
}


def endpoint(port: int, seconds: float, fault: str) -> None:
    """GET /counts: requests that have come, and those that were answered."""
    app, slots = FastAPI(), asyncio.Semaphore(SLOTS)
    counts = {"came": 0, "answered": 0}

    @app.get("/counts")
    async def told() -> dict[str, int]:
        return counts

    @app.post("/v1/chat/completions")
    async def complete() -> Any:
        counts["came"] += 1
        if fault == "429":
            return Response(status_code=429)
        if fault == "hangs":
            await asyncio.sleep(3600)
        async with slots:
            await asyncio.sleep(seconds)
        counts["answered"] += 1
        return completion("any", RED)

    @app.post("/die")
    async def die() -> None:
        """Cut all connections, and be gone for a while."""
        server.should_exit = server.force_exit = True

    while True:
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical")
        server = uvicorn.Server(config)
        server.run()
        if not server.force_exit:
            return
        time.sleep(DOWN)


class Server:
    """One endpoint's process."""

    def __init__(self, port: int, seconds: float, fault: str = "") -> None:
        self.url = f"http://127.0.0.1:{port}"
        words = ["-m", "bench.endpoints", "--serve", str(port), str(seconds), fault or "none"]
        self._process = subprocess.Popen([sys.executable, *words])
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/counts")
                return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise SystemExit(f"{self.url} does not start")

    def die(self) -> None:
        httpx.post(f"{self.url}/die")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def came(self) -> int:
        return int(httpx.get(f"{self.url}/counts").json()["came"])


@contextmanager
def three(case: str, port: int) -> Iterator[list[Server]]:
    faulty = "429" if "429" in case else "hangs" if "hangs" in case else ""
    with ExitStack() as open_ones:
        found = []
        for number, seconds in enumerate(CASES[case]):
            one = Server(port + number, seconds, "" if number else faulty)
            open_ones.callback(one.stop)
            found.append(one)
        yield found


def measured(case: str, count: int, threads: int, port: int) -> dict[str, Any]:
    task, meter = colour_task(), Meter(100 * count)
    with three(case, port) as servers, tempfile.TemporaryDirectory() as folder:
        lms.configure(Path(folder))
        urls = [f"{one.url}/v1" for one in servers]
        config = RunConfig(lm=f"openai/{port}", api_base=urls, timeout=TIMEOUT)  # type: ignore[arg-type]
        if "dies" in case:
            Timer(DIES, servers[0].die).start()
        began = time.monotonic()
        with dspy.context(lm=lms.task_lm(config, meter, 40)):
            found = evaluate(student(task), rows_of(range(count)), Asking(task, threads))
        seconds = time.monotonic() - began
        came = [one.came for one in servers]
    usage = meter.usage()
    up = CASES[case] if not {"429", "hangs"} & set(case.split()) else CASES[case][1:]
    ideal = sum(min(SLOTS, threads / len(up)) / s for s in up)
    return {
        "case": case,
        "answered a second": round(count / seconds, 1),
        "ideal": round(ideal, 1),
        "share of the ideal": round(count / seconds / ideal, 2),
        "calls": usage.calls,
        "failed": usage.failed,
        "came": came,
        "rows missing": found.missing,
        "score": found.interval.mean,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--threads", type=int, default=24)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--port", type=int, default=18200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        port, seconds, fault = given.serve
        return endpoint(int(port), float(seconds), fault)
    lines = []
    for number, case in enumerate(case for case in CASES if given.only in case):
        line = measured(case, given.rows, given.threads, given.port + 10 * number)
        lines.append(line)
        if not given.json:
            print("| " + " | ".join(map(str, line.values())) + " |", flush=True)
    if given.json:
        print(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()

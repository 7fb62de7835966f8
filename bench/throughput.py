"""How near a whole climb comes to the time that its calls must take on a hosted LM.

    python -m bench.throughput [--latency 0.2] [--threads 8 32 64] [--max-calls 3000] [--json]

A server of its own answers every call after the latency; the climb is `optimize run` on 500 rows
that no prompt teaches, so that every lever is tried. Ideal: calls x latency / threads. CPU: seconds
of the climb's process for 100 calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from tests.test_lm import served

DESKS = ("north", "south", "east", "west")
PROGRAM = f"""
from typing import Literal
import dspy
from optimize import Score, Task

class Route(dspy.Signature):
    \"\"\"Say which desk takes the message.\"\"\"
    message: str = dspy.InputField()
    desk: Literal[{DESKS}] = dspy.OutputField()

def metric(example, prediction):
    return Score(float(example.desk == prediction.desk), f"It is {{example.desk}}.")

task = Task(signature=Route, metric=metric, target=0.95, max_tokens=60)
"""


def server(latency: float) -> FastAPI:
    """Answers with a desk that the message picks, after the latency; in whatever form is asked."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        await asyncio.sleep(latency)
        messages = body["messages"]
        desk = DESKS[zlib.crc32(messages[-1]["content"].encode()) % 4]
        text = f"[[ ## desk ## ]]\n{desk}\n\n[[ ## completed ## ]]"
        schema = json.dumps(body.get("response_format") or {})
        if '"properties"' in schema or "json_object" in schema:
            text = json.dumps({"reasoning": "It says so.", "desk": desk})
        elif '"enum"' in schema:
            text = json.dumps(desk)
        message = {"role": "assistant", "content": text}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }

    return app


def write_project(root: Path) -> None:
    """The task `route` with its 500 rows."""
    (root / "programs").mkdir()
    (root / "programs" / "route.py").write_text(PROGRAM)
    rows = root / "devsets" / "route"
    rows.mkdir(parents=True)
    lines = [{"message": f"Case {n * 7919}, {n}", "desk": DESKS[n % 4]} for n in range(500)]
    (rows / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def climb(url: str, threads: int, calls: int, latency: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root)
        command = [sys.executable, "-m", "optimize", "run", "route", "--lm", "openai/slow"]
        command += ["--api-base", url, "--threads", str(threads), "--max-calls", str(calls)]
        command += ["--finetune", "never", "--json"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    levers = {a["rung"]: (a["lm_calls"], a["seconds"]) for a in report["attempts"]}
    print({k: f"{n} in {s:.0f} s" for k, (n, s) in levers.items()}, file=sys.stderr)
    ideal = report["lm_calls"] * latency / threads
    return {
        "threads": threads,
        "calls": report["lm_calls"],
        "seconds": round(took, 1),
        "ideal": round(ideal, 1),
        "times_ideal": round(took / ideal, 2),
        "cpu_100_calls": round(100 * cpu / report["lm_calls"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--threads", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--max-calls", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with served(server(given.latency)) as url:
        rows = [climb(f"{url}/v1", n, given.max_calls, given.latency) for n in given.threads]
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")


if __name__ == "__main__":
    main()

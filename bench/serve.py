"""`optimize serve` under load: its throughput against that of the LM's endpoint alone, how long a
request takes, what it refuses, and whether anything is lost when it is stopped.

    python -m bench.serve --threads 16 --requests 1500

The LM is a server on this machine that answers each call after 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import uvicorn

from optimize.commands.new import write_task
from tests.faulty_server import faulty_app
from tests.stored import stored_run

SECONDS = 0.05  # that the LM takes
BODY = {"model": "any", "messages": [{"role": "user", "content": "Works."}], "temperature": 0}


def lm(port: int) -> None:
    """The LM's endpoint; GET /count says how many calls it has answered."""
    app = faulty_app(lambda text: '"positive"', lambda asked: "", SECONDS)

    @app.get("/count")
    async def count() -> int:
        return len(app.state.log)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")


async def load(url: str, body: object, at_once: int, requests: int) -> tuple[Counter[str], str]:
    """So many requests, `at_once` at a time; how they ended, and a line of figures."""
    ended: Counter[str] = Counter()
    took: list[float] = []
    left = iter(range(requests))

    async def client(session: httpx.AsyncClient) -> None:
        for n in left:
            began = time.perf_counter()
            sent = body if "model" in str(body) else {"text": f"Works, number {n}."}
            try:
                status = str((await session.post(url, json=sent)).status_code)
            except httpx.ConnectError:
                status = "not accepted"
            except httpx.HTTPError:
                status = "connection closed"
            ended[status] += 1
            if status == "200":
                took.append(time.perf_counter() - began)
            if status == "not accepted":
                return

    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(timeout=60, limits=limits) as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(at_once)))
        seconds = time.perf_counter() - began
    cuts = statistics.quantiles(took, n=20)
    line = f"{len(took) / seconds:.0f}/s, p50 {cuts[9] * 1e3:.0f} ms, p95 {cuts[18] * 1e3:.0f} ms"
    return ended, f"{line}, {dict(ended)}"


async def until(url: str) -> None:
    async with httpx.AsyncClient() as session:
        for _ in range(600):
            try:
                await session.get(url)
                return
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


async def measure(threads: int, requests: int, ports: tuple[int, int]) -> None:
    base, url = (f"http://127.0.0.1:{port}" for port in ports)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "programs").mkdir()
        write_task(root, "review")
        stored_run(root, "review", 8, api_base=f"{base}/v1")
        words = ["serve", "review", "--port", str(ports[1]), "--threads", str(threads)]
        there = os.environ | {"PYTHONPATH": os.getcwd()}
        serving = subprocess.Popen([sys.executable, "-m", "optimize", *words], cwd=root, env=there)
        try:
            await until(f"{url}/health")
            direct = await load(f"{base}/v1/chat/completions", BODY, threads, requests)
            print(f"the LM alone, {threads} at once: {direct[1]}")
            used = cpu_seconds(serving.pid)
            served = await load(f"{url}/predict", {}, threads, requests)
            used = (cpu_seconds(serving.pid) - used) / requests
            print(f"served, {threads} at once: {served[1]}, {used * 1e3:.1f} ms of CPU a request")
            more = await load(f"{url}/predict", {}, 2 * threads, requests)
            print(f"served, {2 * threads} at once: {more[1]}")
            await stopped(serving, base, url, threads)
        finally:
            serving.kill()
            serving.wait()


def cpu_seconds(process: int) -> float:
    """That a process has used so far; Linux alone tells."""
    told = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


async def stopped(serving: subprocess.Popen[bytes], base: str, url: str, threads: int) -> None:
    """SIGTERM under load: each call that the LM has answered must have reached a client."""
    async with httpx.AsyncClient() as session:
        before = (await session.get(f"{base}/count")).json()
        running = asyncio.create_task(load(f"{url}/predict", {}, threads, 10**6))
        await asyncio.sleep(2)
        serving.send_signal(signal.SIGTERM)
        ended, line = await running
        code = await asyncio.to_thread(serving.wait, 60)
        asked = (await session.get(f"{base}/count")).json() - before
    lost = asked - ended["200"]
    print(f"stopped under load: {line}; exit {code}; LM answered {asked}, lost {lost}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--ports", type=json.loads, default=[8731, 8732])
    given = parser.parse_args()
    code = f"from bench.serve import lm; lm({given.ports[0]})"
    endpoint = subprocess.Popen([sys.executable, "-c", code])
    try:
        asyncio.run(until(f"http://127.0.0.1:{given.ports[0]}/count"))
        asyncio.run(measure(given.threads, given.requests, tuple(given.ports)))
    finally:
        endpoint.kill()


if __name__ == "__main__":
    main()

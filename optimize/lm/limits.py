"""What a run may spend beside calls: tokens, money, time. Knows numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

Spent = tuple[float, float, float]  # tokens, US dollars, minutes
NOTHING: Spent = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Limits:
    """None: no limit. tokens: read and written. usd: US dollars. minutes: of the clock."""

    tokens: int | None = None
    usd: float | None = None
    minutes: float | None = None

    def reached(self, tokens: float, usd: float, minutes: float) -> str:
        """Which limit forbids a further call, and the flag that sets it; empty where none does."""
        for flag, unit, limit, spent in self._each(tokens, usd, minutes):
            if spent >= limit:
                return f"The cap of {limit:g} {unit} is reached (--{flag})."
        return ""

    def calls(self, sent: int, spent: Spent, kept: Spent = NOTHING, idle: float = 0.0) -> float:
        """How many calls more they allow, if these take what those sent have taken on average and
        so much is kept back; 0 at least. idle: minutes spent in which none was asked for.
        """
        return min(self.calls_each(sent, spent, kept, idle).values(), default=math.inf)

    def calls_each(
        self, sent: int, spent: Spent, kept: Spent = NOTHING, idle: float = 0.0
    ) -> dict[str, float]:
        """The same for each of them, by its flag; without those of which nothing was taken."""
        if not sent:
            return {}
        tokens, usd, minutes = spent
        asking = self._each(tokens, usd, minutes - idle)
        each = zip(self._each(*spent), self._each(*kept), asking, strict=True)
        return {
            flag: max(0.0, (limit - n - back) * sent / took)
            for (flag, _, limit, n), (*_, back), (*_, took) in each
            if took > 0
        }

    def _each(
        self, tokens: float, usd: float, minutes: float
    ) -> list[tuple[str, str, float, float]]:
        every = [
            ("max-tokens", "tokens", self.tokens, tokens),
            ("budget-usd", "US dollars", self.usd, usd),
            ("max-minutes", "minutes", self.minutes, minutes),
        ]
        return [(flag, unit, limit, n) for flag, unit, limit, n in every if limit is not None]


class Purse(Protocol):
    """A budget that runs in several processes share. Asked before every request is sent."""

    def take(self, calls: int) -> None:
        """Raises BudgetExhausted where so many calls are not left."""

    def paid(self, usd: float, tokens: int) -> None:
        """An answer took so many US dollars and tokens."""

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

    def calls(self, call: Spent, spent: Spent, kept: Spent = NOTHING) -> float:
        """How many calls more they allow, if each takes so much and so much is kept back; 0 at
        least.
        """
        return min(self.calls_each(call, spent, kept).values(), default=math.inf)

    def calls_each(self, call: Spent, spent: Spent, kept: Spent = NOTHING) -> dict[str, float]:
        """The same for each of them, by its flag; without those of which a call takes nothing."""
        each = zip(self._each(*spent), self._each(*kept), self._each(*call), strict=True)
        return {
            flag: max(0.0, (limit - n - back) / took)
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

"""What a run may spend beside calls: tokens, money, time. Knows numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass


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

    def calls(self, sent: int, tokens: float, usd: float, minutes: float) -> float:
        """How many calls more they allow, if these take what those sent have taken on average."""
        if not sent:
            return math.inf
        return min(
            (
                (limit - spent) * sent / spent
                for _, _, limit, spent in self._each(tokens, usd, minutes)
                if spent
            ),
            default=math.inf,
        )

    def _each(
        self, tokens: float, usd: float, minutes: float
    ) -> list[tuple[str, str, float, float]]:
        every = [
            ("max-tokens", "tokens", self.tokens, tokens),
            ("budget-usd", "US dollars", self.usd, usd),
            ("max-minutes", "minutes", self.minutes, minutes),
        ]
        return [(flag, unit, limit, n) for flag, unit, limit, n in every if limit is not None]

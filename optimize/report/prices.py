"""What an answer costs, and which of several programs or LMs are worth their price."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from optimize.stats.records import Record


class Price(Record):
    """What an answer took on average, over those that were asked and not cached."""

    tokens: float = Field(description="read and written")
    usd: float | None = Field(description="null: the LM's price is not known")


def pareto(points: Sequence[tuple[str, Price | None, float]]) -> set[str]:
    """Those that nothing as cheap scores better than; without a price: none of these.

    Held against each other in US dollars where all have such a price, else in tokens.
    """
    priced = [(name, price, score) for name, price, score in points if price]
    usd = in_usd([price for _, price, _ in priced])
    found: set[str] = set()
    best = -math.inf
    for name, _, score in sorted(priced, key=lambda p: (cost(p[1], usd), -p[2])):
        if score > best:
            best = score
            found.add(name)
    return found


def in_usd(prices: Sequence[Price]) -> bool:
    """Whether prices are known in US dollars, and not all of them nothing."""
    return all(p.usd is not None for p in prices) and any(p.usd for p in prices)


def cost(price: Price, usd: bool) -> float:
    """Of 1,000 answers in US dollars, or of one in tokens."""
    return 1000 * (price.usd or 0.0) if usd else price.tokens

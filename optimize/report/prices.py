"""What an answer costs, and which of several programs or LMs are worth their price."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from pydantic import Field

from optimize.stats.intervals import differences, known
from optimize.stats.records import Record

Scores = Sequence[float | None]  # None: not known


class Price(Record):
    """What an answer took on average, over those that were asked and not cached."""

    tokens: float = Field(description="read and written")
    usd: float | None = Field(description="null: the LM's price is not known")


def pareto(points: Sequence[tuple[str, Price | None, Scores]]) -> set[str]:
    """Those that score better, on the rows that both answered, than the best of those as cheap;
    without a price: none of these. Scores are in the order of the same rows.

    Held against each other in US dollars where all have such a price, else in tokens.
    """
    priced = [(name, price, scores) for name, price, scores in points if price and known(scores)]
    usd = in_usd([price for _, price, _ in priced])
    found: set[str] = set()
    best: Scores | None = None
    for name, _, scores in sorted(priced, key=lambda p: (cost(p[1], usd), -fmean(known(p[2])))):
        if best is None or sum(differences(best, scores)) > 0:
            best = scores
            found.add(name)
    return found


def in_usd(prices: Sequence[Price]) -> bool:
    """Whether prices are known in US dollars, and not all of them nothing."""
    return all(p.usd is not None for p in prices) and any(p.usd for p in prices)


def cost(price: Price, usd: bool) -> float:
    """Of 1,000 answers in US dollars, or of one in tokens."""
    return 1000 * (price.usd or 0.0) if usd else price.tokens

"""What sets one LoRA apart from another on the same rows, the grid of them, and which one val rows
choose. Numbers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import Field

from optimize.finetune.lora.cut import BATCH
from optimize.stats.intervals import known, mean_interval, paired_gain
from optimize.stats.records import Record, ScoreRecord

ALPHA = 32  # of every rank, so that a rate does for all of them
# the first of each is what is trained without a grid; then less, then more. Rates in that one's
RATES, RANKS, SHARES = (1, 1 / 3, 3), (16, 4, 64), (0.5, 0.25, 1.0)


@dataclass(frozen=True)
class Recipe:
    """rate: the highest learning rate. rank: of the two matrices beside each linear module. share:
    of the blocks, from the top, whose modules are adapted.
    """

    rate: float
    rank: int = RANKS[0]
    share: float = SHARES[0]

    def first(self, blocks: int) -> int:
        """The first block that is trained."""
        return int(blocks * (1 - self.share))

    @property
    def params(self) -> dict[str, Any]:
        """As a training's record names them."""
        return {
            "rank": self.rank,
            "alpha": ALPHA,
            "batch": BATCH,
            "learning_rate": self.rate,
            "blocks_trained": self.share,
        }

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.share:.0%} of the blocks, learning rate {self.rate:g}"


def grid(most: int, rate: float) -> list[Recipe]:
    """The first so many of all combinations: those that differ from the default in one thing come
    before those that differ in two; rates, which matter most, before ranks and shares. Recipes of
    one share stand together, as they share what the lower blocks say of each row. rate: the
    default's.
    """
    own, rates = Recipe(rate), [float(f"{rate * times:.1e}") for times in RATES]
    every = [Recipe(rate, rank, share) for share, rank, rate in product(SHARES, RANKS, rates)]

    def apart(one: Recipe) -> int:
        return (one.rank != own.rank) + (one.share != own.share) + (one.rate != own.rate)

    first = sorted(every, key=apart)[:most]  # stable
    return sorted(first, key=lambda one: SHARES.index(one.share))


def choose(scores: Sequence[Sequence[float | None]], sizes: Sequence[int]) -> int:
    """The number of the LoRA to keep. scores: of each on the same rows. sizes: of the adapters.

    The one-standard-error rule (Breiman et al. 1984), paired: of those that the best one beats by
    no more than the standard error of their difference, the smallest, and of equals the best.
    Raises ValueError where one has no score.
    """
    means = [mean_interval(known(one)).mean for one in scores]
    best = max(range(len(means)), key=means.__getitem__)

    def near(n: int) -> bool:
        gain = paired_gain(scores[n], scores[best])
        return n == best or gain.mean <= gain.error

    return min(filter(near, range(len(means))), key=lambda n: (sizes[n], -means[n], n))


class GridPoint(Record):
    """One LoRA of a grid."""

    rank: int
    share: float = Field(description="of the blocks, from the top, that were adapted")
    learning_rate: float
    val: ScoreRecord | None = Field(None, description="null where it was not trained")
    size: int = Field(0, description="bytes of the adapter")
    seconds: float = Field(0.0, description="of its training")
    chosen: bool = False
    skipped: str = Field("", description="why it was not trained")


class GridRecord(Record):
    """LoRAs trained on the same rows, of which val rows chose one."""

    points: list[GridPoint]
    optimism: float = Field(
        0.0,
        description="by how much the best of these val scores is too high for being the best, "
        "likely",
    )

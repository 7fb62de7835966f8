"""What every backend reports of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field

from optimize.stats.records import Record

TrainingProgress = Callable[[int, int, str], None]  # done, of how many, a word on it
Say = Callable[[str], None]  # a line that stays


def silent(line: str) -> None:
    """Says nothing."""


class Epoch(Record):
    """One pass over the train rows: the mean loss on their answers and on val's."""

    train_loss: float
    val_loss: float
    val_right: float = Field(description="share of the val answers that are right word for word")
    seconds: float = Field(
        0.0,
        description="what it took, also where the training was gone on with or done before; 0 "
        "where unknown",
    )


def kept(epochs: Sequence[Epoch]) -> int:
    """The number of the epoch with most val answers right, of equals the one with the lowest loss,
    and the first.
    """
    order = [(epoch.val_right, -epoch.val_loss) for epoch in epochs]
    return order.index(max(order))

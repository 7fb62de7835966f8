"""What every backend reports of a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def write_curve(path: Path, epochs: Sequence[Epoch]) -> None:
    """Put a training's epochs down, as JSON."""
    path.write_text(json.dumps([epoch.model_dump() for epoch in epochs]), encoding="utf-8")


def read_curve(path: Path) -> list[Epoch]:
    """The epochs of a training; none where they were not written down."""
    if not path.is_file():
        return []
    return [Epoch(**epoch) for epoch in json.loads(path.read_text(encoding="utf-8"))]


def kept(epochs: Sequence[Epoch]) -> int:
    """The number of the epoch with most val answers right, of equals the one with the lowest loss,
    and the first.
    """
    order = [(epoch.val_right, -epoch.val_loss) for epoch in epochs]
    return order.index(max(order))


@dataclass(frozen=True)
class Step:
    """One step of the optimizer. number: from 1. loss: its batch's. tokens: of that batch, which
    took so many seconds. memory: bytes that the training has held at most so far.
    """

    number: int
    loss: float
    tokens: int
    seconds: float
    memory: int


class Sample(Record):
    """A val row and what the LM in training says to it."""

    asked: str = Field(description="the end of the prompt, as the LM reads it")
    gold: str
    said: str = Field(description="the likeliest token at each place of the answer, after gold's")


class TrainingLog:
    """What a training tells whoever writes it down. Each method may be left out."""

    def step(self, step: Step) -> None: ...

    def epoch(self, number: int, epoch: Epoch, samples: Sequence[Sample]) -> None:
        """number: from 1."""

"""What every backend reports of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int, str], None]  # done, of how many, a word on it


@dataclass(frozen=True)
class Epoch:
    """One pass over the train rows: mean loss on their answers, loss on val's, and the share of val answers right word for word."""

    train_loss: float
    val_loss: float
    val_right: float

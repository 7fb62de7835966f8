"""A tuned LM in its programs, held against the best prompt program. Asks no LM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.climb.observer import Attempt
from optimize.finetune.effects import Pair
from optimize.finetune.epoch import Epoch
from optimize.finetune.forgetting import ForgettingRecord


@dataclass(frozen=True)
class Tuned:
    """A tuned LM in two programs, each an Attempt against the best prompt program; its training and
    what it forgot.

    tuned: the adapter file, or the provider's name of the model. train_seconds: None where another
    trainer did it.
    """

    attempts: tuple[Attempt, ...]
    tuned: str
    train_seconds: float | None
    epochs: tuple[Epoch, ...]
    forgetting: tuple[ForgettingRecord, ...]
    ood: Pair | None = None

    @property
    def chosen(self) -> Attempt:
        return better(self.attempts)


def better(attempts: Sequence[Attempt]) -> Attempt:
    """The best one on val, on a tie the one with the shorter prompt, which is tried first."""
    return max(attempts, key=lambda a: a.evaluation.interval.mean if a.evaluation else -1.0)

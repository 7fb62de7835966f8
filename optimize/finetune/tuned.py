"""A tuned LM in its programs, held against the best prompt program. Asks no LM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.climb.observer import Attempt
from optimize.climb.verdict import COVERAGE
from optimize.finetune.effects import Pair
from optimize.finetune.epoch import Epoch
from optimize.finetune.forgetting import ForgettingRecord
from optimize.finetune.lora.recipe import GridRecord
from optimize.scoring.evaluation import Evaluation


@dataclass(frozen=True)
class Tuned:
    """A tuned LM in its programs, each an Attempt against the best prompt program; its training and
    what it forgot. prompt_val: that program's outcomes on val, held to theirs.

    tuned: the adapter file, or the provider's name of the model. train_seconds: None where another
    trainer did it. levers: the climb's, pulled on the tuned LM, each against its best program of
    that time. rows, replayed: that it was trained on here, of the task and general ones.
    grid: of trainings, where this one was chosen among several.
    """

    attempts: tuple[Attempt, ...]
    prompt_val: Evaluation
    tuned: str
    train_seconds: float | None
    epochs: tuple[Epoch, ...]
    forgetting: tuple[ForgettingRecord, ...]
    ood: Pair | None = None
    levers: tuple[Attempt, ...] = ()
    rows: int = 0
    replayed: int = 0
    grid: GridRecord | None = None

    @property
    def chosen(self) -> Attempt:
        return better(self.attempts)

    @property
    def helped(self) -> bool:
        """Whether levers on the tuned LM made the chosen program."""
        return any(a.promoted for a in self.levers) and self.chosen is self.attempts[-1]

    @property
    def other(self) -> Attempt:
        """The best of the others on val, which the test rows are asked of as well: where levers
        made the chosen one, what it was before them.
        """
        return better([a for a in self.attempts if a is not self.chosen])


def better(attempts: Sequence[Attempt]) -> Attempt:
    """The best one on val of those with enough answers, on a tie the one with the shorter prompt,
    which is tried first.
    """

    def rank(attempt: Attempt) -> tuple[bool, float]:
        found = attempt.evaluation
        return (found.coverage >= COVERAGE, found.mean) if found else (False, -1.0)

    return max(attempts, key=rank)

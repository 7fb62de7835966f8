"""What a LoRA training minimises: the loss on gold answers and, where an answer is to be preferred
to another, DPO's as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimize.finetune.lora.cut import CutModel, EncodedRow, batches

BETA = 0.1  # how far preferences may pull from the base LM


@dataclass(frozen=True)
class Lesson:
    """A row to learn; where an answer to the same prompt is worse, that, and how far ahead of it
    the base LM puts the row's.

    ahead: difference of the two answers' log-probabilities, in nats.
    """

    row: EncodedRow
    rejected: EncodedRow | None = None
    ahead: float = 0.0

    def __len__(self) -> int:
        return len(self.row)

    @property
    def rows(self) -> list[EncodedRow]:
        return [self.row, self.rejected] if self.rejected else [self.row]


def lesson(rows: Sequence[EncodedRow]) -> Lesson:
    """Of a row, or of a pair: the chosen answer, then the rejected one."""
    row, *rejected = rows
    return Lesson(row, rejected[0] if rejected else None)


def compared(model: CutModel, lessons: Sequence[Lesson]) -> list[Lesson]:
    """The lessons with what the base LM, which `model` still is, puts ahead in each pair."""
    import torch

    said: dict[int, float] = {}
    with torch.no_grad():
        for batch in batches([row for lesson in lessons if lesson.rejected for row in lesson.rows]):
            said |= zip(map(id, batch), log_probabilities(model, batch).tolist(), strict=True)
    return [
        Lesson(one.row, one.rejected, said[id(one.row)] - said[id(one.rejected)])
        if one.rejected
        else one
        for one in lessons
    ]


def loss(model: CutModel, piece: Sequence[Lesson], batch: Sequence[Lesson]) -> Any:
    """The piece's part of the batch's loss: mean loss of the gold answers' tokens, plus DPO's mean
    loss over the pairs.

    Direct preference optimization: Rafailov et al. 2023; with the gold answers' own loss beside it,
    without which their probability may fall along with that of the rejected ones: Pang et al. 2024.
    """
    import torch

    said = log_probabilities(model, [lesson.row for lesson in piece])
    total = -said.sum() / sum(len(lesson.row.answer) for lesson in batch)
    pairs = [n for n, lesson in enumerate(piece) if lesson.rejected]
    if pairs:
        worse = log_probabilities(model, [r for lesson in piece if (r := lesson.rejected)])
        before = torch.tensor([piece[n].ahead for n in pairs], device=worse.device)
        losses = -torch.nn.functional.logsigmoid(BETA * (said[pairs] - worse - before))
        total = total + losses.sum() / sum(1 for lesson in batch if lesson.rejected)
    return total


def log_probabilities(model: CutModel, rows: list[EncodedRow]) -> Any:
    """Of each row's whole answer, in nats."""
    import torch

    logits, gold = model.answers(rows)
    tokens = -torch.nn.functional.cross_entropy(logits, gold, reduction="none")
    return torch.stack([part.sum() for part in tokens.split([len(row.answer) for row in rows])])

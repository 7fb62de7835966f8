"""What a LoRA training minimises: the loss on gold answers and, where an answer is to be preferred
to another, DPO's as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimize.finetune.lora.model import Encoded, EncodedRow, answers, batches, encode

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


def texts(tokenizer: Any, row: dict[str, Any]) -> list[Encoded]:
    """A chat row as one encoded text, a preference as two: the chosen answer, then the rejected
    one.
    """
    if "messages" in row:
        return [encode(tokenizer, row["messages"])]
    return [encode(tokenizer, [*row["prompt"], *row[side]]) for side in ("chosen", "rejected")]


def encode_lessons(model: Any, rows: Sequence[Sequence[EncodedRow]]) -> list[Lesson]:
    """Lessons from rows and pairs of rows; `model` is still the base LM."""
    import torch

    pairs = [pair for pair in rows if len(pair) == 2]
    said: dict[int, float] = {}
    with torch.no_grad():
        for batch in batches([row for pair in pairs for row in pair]):
            said |= zip(map(id, batch), log_probabilities(model, batch).tolist(), strict=True)
    return [
        Lesson(pair[0], pair[1], said[id(pair[0])] - said[id(pair[1])])
        if len(pair) == 2
        else Lesson(pair[0])
        for pair in rows
    ]


def loss(model: Any, batch: Sequence[Lesson]) -> Any:
    """Mean loss of the gold answers' tokens, plus DPO's mean loss over the pairs.

    Direct preference optimization: Rafailov et al. 2023; with the gold answers' own loss beside it,
    without which their probability may fall along with that of the rejected ones: Pang et al. 2024.
    """
    import torch

    rows = [lesson.row for lesson in batch]
    said = log_probabilities(model, rows)
    total = -said.sum() / sum(len(row.answer) for row in rows)
    pairs = [n for n, lesson in enumerate(batch) if lesson.rejected]
    if pairs:
        worse = log_probabilities(model, [r for lesson in batch if (r := lesson.rejected)])
        before = torch.tensor([batch[n].ahead for n in pairs], device=worse.device)
        total = total - torch.nn.functional.logsigmoid(BETA * (said[pairs] - worse - before)).mean()
    return total


def log_probabilities(model: Any, rows: list[EncodedRow]) -> Any:
    """Of each row's whole answer, in nats."""
    import torch

    logits, gold = answers(model, rows)
    tokens = -torch.nn.functional.cross_entropy(logits, gold, reduction="none")
    return torch.stack([part.sum() for part in tokens.split([len(row.answer) for row in rows])])

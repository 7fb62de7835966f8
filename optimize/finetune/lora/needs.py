"""What a training takes of memory, disk and time, said before it starts. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimize.finetune.lora.cut import FLOAT, PIECE, EncodedRow, batches
from optimize.finetune.lora.objective import Lesson

KEPT, KEPT_INSIDE = 12, 4  # numbers a token leaves behind in a block, by its width and inner width
SPREAD = 4  # copies of the logits: as they come, in float32, normalized, and their gradient
HALF = 2  # bytes
STEP = 3  # a step's forward and backward passes, in forward passes
LIBRARIES = 300 << 20  # bytes that torch takes for itself


@dataclass(frozen=True)
class Shape:
    """A model's: number of weights, blocks, those that are trained, width, inner width, words of
    the vocabulary; heads whose scores are kept, 0 where the attention keeps none; half: whether
    it computes in bfloat16, for which a backward pass keeps copies of the weights.
    """

    weights: int
    blocks: int
    trained: int
    width: int
    inner: int
    words: int
    heads: int = 0
    half: bool = False

    @property
    def of_blocks(self) -> int:
        return max(0, self.weights - self.words * self.width)

    def activations(self, rows: Sequence[EncodedRow]) -> int:
        """Bytes that a step on these rows, side by side, leaves for its backward pass.

        What a block keeps: after Korthikanti et al. 2022, for frozen weights in float32.
        """
        longest = max(map(len, rows))
        token = KEPT * self.width + KEPT_INSIDE * self.inner + 3 * self.heads * longest
        answers = sum(len(row.answer) for row in rows)
        return FLOAT * (len(rows) * longest * token * self.trained + SPREAD * answers * self.words)


@dataclass(frozen=True)
class Needs:
    """memory, disk: bytes. seconds: at most, as training may stop early."""

    memory: int
    disk: int
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"about {self.memory / 1e9:.1f} GB of memory, {self.disk / 1e9:.2f} GB of disk and "
            f"at most {duration(self.seconds)}"
        )


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def shape(config: Any, weights: int, first: int, half: bool = False) -> Shape:
    """Of a transformers config, with blocks trained from `first` on."""
    blocks, width = config.num_hidden_layers, config.hidden_size
    heads = config.num_attention_heads if getattr(config, "attn_logit_softcapping", None) else 0
    inner = getattr(config, "intermediate_size", 4 * width)
    return Shape(weights, blocks, blocks - first, width, inner, config.vocab_size, heads, half)


def needs(
    model: Shape,
    lessons: Sequence[Lesson],
    val: Sequence[EncodedRow],
    epochs: int,
    token_seconds: float = 0.0,
) -> Needs:
    """token_seconds: what a token takes to run through all blocks."""
    rows = [row for lesson in lessons for row in lesson.rows]
    upper = model.trained / model.blocks
    largest = max(
        model.activations([row for lesson in piece for row in lesson.rows])
        for batch in batches(lessons)
        for piece in pieces(batch, model)
    )
    left = int(model.weights - (1 - upper) * model.of_blocks)  # the lower blocks are dropped
    trained = (FLOAT + (HALF if model.half else 0)) * left + largest
    tokens, judged = (sum(map(len, some)) for some in (rows, val))
    head = model.words * model.width / max(1, model.of_blocks)
    answers, judged_answers = (sum(len(row.answer) for row in some) for some in (rows, val))
    passes = (1 - upper) * (tokens + judged) + epochs * (
        STEP * upper * tokens + upper * judged + head * (2 * answers + judged_answers)
    )
    return Needs(
        LIBRARIES + max(FLOAT * model.weights, trained),
        FLOAT * model.width * (tokens + judged),
        passes * token_seconds,
    )


def pieces(batch: Sequence[Lesson], model: Shape) -> list[list[Lesson]]:
    """The batch in pieces that each take little memory; a lesson is not split."""
    found: list[list[Lesson]] = [[]]
    for lesson in batch:
        tried = [*found[-1], lesson]
        if found[-1] and model.activations([r for one in tried for r in one.rows]) > PIECE:
            found.append([lesson])
        else:
            found[-1] = tried
    return found

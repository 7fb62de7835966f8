"""The LM of this process that TRL is to tune: is what transformers loads what is served, which rows
can it read, and what will training it take?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.epoch import Say
from optimize.finetune.handoff.recipes import trl_lora
from optimize.finetune.lora.adapter_gguf import ELSEWHERE, Served
from optimize.finetune.lora.cut import FLOAT, CutModel, EncodedRow, batches
from optimize.finetune.lora.model import head_width, linear, load_config, load_model, parameters
from optimize.finetune.lora.needs import HALF, STEP, Needs, Shape, duration, shape
from optimize.finetune.lora.served import ServedLM, readable
from optimize.finetune.lora.train import check_room
from optimize.lm.embedded import context_of

LIBRARIES = 900 << 20  # bytes that torch, transformers and TRL take for themselves
BYTES = {"float32": 4.0, "bf16": 2.0, "4bit": 0.6}  # of a weight on a GPU
OPTIMIZED = 16  # bytes of an adapter's weight, with its gradient and Adam's two means
APART = 0.05  # of the rows, at most, that base and served LM may read otherwise
Row = dict[str, Any]


@dataclass(frozen=True)
class Where:
    """gpus: that it is trained on; 0: the processor. precision: of the base's weights there."""

    gpus: int
    precision: str

    def __str__(self) -> str:
        on = f"{self.gpus} GPUs" if self.gpus > 1 else "one GPU" if self.gpus else "the processor"
        return f"{on}, base in {self.precision}"


@dataclass(frozen=True)
class ServedBase:
    """path: the GGUF file that is served, with room for so many tokens. base: the weights that are
    trained, which may be that file.
    """

    base: str
    path: Path
    context: int

    def checked(
        self, rows: Sequence[Row], val: Sequence[Row], where: Where, epochs: int, say: Say
    ) -> tuple[list[Row], list[Row]]:
        """The train and val rows that the LM can read where it is served; says what training on
        them takes.

        Raises WorkbenchError where base and served LM are not the same, or memory does not suffice.
        """
        engine, served, known = ServedLM(self.path), Served(self.path), load_config(self.base)
        taught = readable(engine, rows, self.context, "train", say)
        judged = readable(engine, val, self.context, "val", say)
        self._check_tokens([*taught, *judged])
        if Path(self.base).is_file() and served.values("rope_freqs.weight") is not None:
            raise WorkbenchError(
                f"{self.path.name} holds positions that transformers does not read from a GGUF "
                f"file. {ELSEWHERE}"
            )
        size = shape(known, parameters(known), 0, where.precision != "float32")
        read = [one for _, found in taught for one in found]
        asked = size, read, sum(len(one) for _, found in judged for one in found), epochs, where
        check_room(needs(*asked))
        model = load_model(self.base, known, served)
        modules = {n: one.weight.detach().numpy() for n, one in linear(model, 0).items()}
        served.places(modules, known.num_hidden_layers, head_width(known))
        engine.check_same(model, [found[0] for _, found in taught])
        took = 0.0 if where.gpus else CutModel(model, 0).token_seconds(read)
        say(f"TRL's training takes {_told(needs(*asked, took), where)}")
        return [row for row, _ in taught], [row for row, _ in judged]

    def _check_tokens(self, rows: Sequence[tuple[Row, list[EncodedRow]]]) -> None:
        """The base's own tokenizer and chat template must read rows as the served LM does."""
        own = tokens(self.base, [row for row, _ in rows])
        apart = sum(
            (one.ids, one.prompt) != (read[0].ids, read[0].prompt)
            for one, (_, read) in zip(own, rows, strict=True)
        )
        if apart > APART * len(rows):
            raise WorkbenchError(
                f"The tokenizer and chat template of {self.base} read {apart} of {len(rows)} rows "
                f"otherwise than {self.path.name} does where it is served. {ELSEWHERE}"
            )


def served_base(base: str, config: RunConfig) -> ServedBase:
    path = lms.gguf_path(config.lm)
    assert path, "asked for an LM of this process"
    return ServedBase(base, path, context_of(path, config.context))


def tokens(base: str, rows: Sequence[Row]) -> list[EncodedRow]:
    """As the base's own tokenizer and chat template read them; of a preference the chosen answer.

    Raises WorkbenchError where it has none.
    """
    try:
        tokenizer = trl_lora.tokenizer_of(base)
    except (SystemExit, OSError, ValueError) as error:
        raise WorkbenchError(f"The tokenizer of {base} cannot be used: {error}") from None
    found = []
    for row in rows:
        messages = row.get("messages") or [*row["prompt"], *row["chosen"]]
        ids, prompt = trl_lora.encoded(tokenizer, messages)
        found.append(EncodedRow(tuple(ids), prompt))
    return found


def expected(
    base: str, rows: Sequence[Row], val: Sequence[Row], where: Where, epochs: int
) -> Needs:
    """What a training will take, before anything of the base is loaded."""
    known = load_config(base)
    size = shape(known, parameters(known), 0, where.precision != "float32")
    judged = sum(map(len, tokens(base, val)))
    return needs(size, tokens(base, rows), judged, epochs, where)


def needs(
    model: Shape,
    rows: Sequence[EncodedRow],
    judged: int,
    epochs: int,
    where: Where,
    token_seconds: float = 0.0,
) -> Needs:
    """What a training takes on the processor, or on each GPU; there blocks keep their inputs alone
    for the backward pass, and run again in it. judged: tokens of all val rows. token_seconds: what
    a token takes to run through all blocks.
    """
    flat = [EncodedRow(row.ids, 0) for row in rows]  # the vocabulary is spread out at every token
    largest = max(batches(flat), key=lambda batch: len(batch) * max(map(len, batch)))
    adapter = model.blocks * trl_lora.RANK * (11 * model.width + 3 * model.inner) * OPTIMIZED
    if where.gpus:
        inputs = HALF * model.blocks * model.width * len(largest) * max(map(len, largest))
        step = replace(model, trained=1).activations(largest) + inputs
        held = (BYTES[where.precision] * model.weights + adapter + step) / where.gpus
    else:
        copies = HALF * model.weights if model.half else 0
        held = FLOAT * model.weights + copies + adapter + model.activations(largest)
    tokens = sum(map(len, rows))
    passes = epochs * ((STEP + bool(where.gpus)) * tokens + judged)
    return Needs(LIBRARIES + int(held), 0, passes * token_seconds)


def _told(found: Needs, where: Where) -> str:
    memory = f"about {found.memory / 1e9:.1f} GB of memory" + (" on each GPU" if where.gpus else "")
    if where.gpus:
        return f"{memory}; how long is told after its first steps"
    return f"{memory} and at most {duration(found.seconds)}"

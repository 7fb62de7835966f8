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
from optimize.finetune.lora.adapter_peft import Places
from optimize.finetune.lora.cut import FLOAT, PIECE, CutModel, EncodedRow, batches
from optimize.finetune.lora.model import head_width, linear, load_config, load_model, parameters
from optimize.finetune.lora.needs import HALF, STEP, Needs, Shape, duration, shape
from optimize.finetune.lora.room import check_room
from optimize.finetune.lora.served import ServedLM, readable
from optimize.lm.embedded import context_of

LIBRARIES = 900 << 20  # bytes that torch, transformers and TRL take for themselves
BYTES = {"float32": 4.0, "bf16": 2.0, "4bit": 0.6}  # of a weight on a GPU
OPTIMIZED = 16  # bytes of an adapter's weight, with its gradient and Adam's two means
PIECES = (1, 2, 4, 8)  # that a step of 8 rows can be run in
APART = 0.05  # of the rows, at most, that base and served LM may read otherwise
Row = dict[str, Any]


@dataclass(frozen=True)
class Where:
    """gpus: that it is trained on; 0: the processor. precision: of the base's weights there.
    pieces: that a step is run in, one after the other.
    """

    gpus: int
    precision: str
    pieces: int = 1

    def __str__(self) -> str:
        on = f"{self.gpus} GPUs" if self.gpus > 1 else "one GPU" if self.gpus else "the processor"
        return f"{on}, base in {self.precision}"


@dataclass(frozen=True)
class Checked:
    """The rows that the LM can read where it is served, the pieces that a step on them is run in,
    and where the base's modules lie in the served file.
    """

    rows: list[Row]
    val: list[Row]
    where: Where
    places: Places


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
    ) -> Checked:
        """What is to be trained on; says what the training takes.

        Raises WorkbenchError where base and served LM are not the same, or memory does not suffice.
        """
        engine = ServedLM(self.path, self.context)
        served, known = Served(self.path), load_config(self.base)
        taught = readable(engine, rows, self.context, "train", say)
        judged = readable(engine, val, self.context, "val", say)
        self._check_tokens([*taught, *judged])
        if Path(self.base).is_file() and served.values("rope_freqs.weight") is not None:
            raise WorkbenchError(
                f"{self.path.name} holds positions that transformers does not read from a GGUF "
                f"file. {ELSEWHERE}"
            )
        read = [found[0] for _, found in taught]
        judging = sum(len(found[0]) for _, found in judged)
        paired = sum(len(one) for _, found in taught if len(found) > 1 for one in found)
        where, size = expected(known, read, judging, where, epochs, paired)
        check_room(size, where.gpus > 0)
        model = load_model(self.base, known, served)
        modules = {n: one.weight.detach().numpy() for n, one in linear(model, 0).items()}
        found = served.places(modules, known.num_hidden_layers, head_width(known))
        engine.check_same(model, read)
        took = 0.0 if where.gpus else CutModel(model, 0).token_seconds(read)
        say(told(replace(size, seconds=size.seconds * took), where))
        places = {name: (place, modules[name].shape) for name, place in found.items()}
        return Checked([row for row, _ in taught], [row for row, _ in judged], where, places)

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


def expected_of(
    base: str, rows: Sequence[Row], val: Sequence[Row], where: Where, epochs: int
) -> tuple[Where, Needs]:
    """`expected`, of rows as the base's own tokenizer reads them."""
    read = tokens(base, [*rows, *val])
    judged = sum(map(len, read[len(rows) :]))
    paired = 2 * sum(len(one) for row, one in zip(rows, read, strict=False) if "chosen" in row)
    return expected(load_config(base), read[: len(rows)], judged, where, epochs, paired)


def expected(
    known: Any,
    rows: Sequence[EncodedRow],
    judged: int,
    where: Where,
    epochs: int,
    paired: int = 0,
) -> tuple[Where, Needs]:
    """The same place with a step in as many pieces as keep each of them small, and what the
    training then takes on the processor or on each GPU, before anything of the base is loaded.

    known: the base's configuration. judged: tokens of all val rows. paired: of both answers of all
    preferences, which are compared side by side once, with what SFT made of the base. The seconds
    are those of a base that needs one for a token to run through all blocks.
    """
    model = shape(known, parameters(known), 0, where.precision != "float32")
    # the vocabulary is spread out at every token
    read = [EncodedRow(row.ids, 0) for row in rows]
    largest = max(batches(read), key=lambda batch: len(batch) * max(map(len, batch)))
    share = -(-len(largest) // max(1, where.gpus))  # rows of a step on one device, sorted
    sides = 2 if paired else 1
    fitting = (n for n in PIECES if sides * _step(model, largest[-share // n :], where) <= PIECE)
    pieces = next(fitting, max(n for n in PIECES if n <= share))
    held = _weights(model, where) + sides * _step(model, largest[-share // pieces :], where)
    step = STEP + bool(where.gpus)
    passes = epochs * (step * sum(map(len, read)) + judged) + (step + 1) * paired
    return replace(where, pieces=pieces), Needs(LIBRARIES + int(held), 0, passes)


def _step(model: Shape, rows: Sequence[EncodedRow], where: Where) -> float:
    """Bytes that these rows side by side leave for the backward pass. On a GPU blocks keep their
    inputs alone, and run again in it.
    """
    if not where.gpus:
        return model.activations(rows)
    inputs = HALF * model.blocks * model.width * len(rows) * max(map(len, rows))
    return replace(model, trained=1).activations(rows) + inputs


def _weights(model: Shape, where: Where) -> float:
    """Bytes of the base's and of the adapter's, which several GPUs divide."""
    adapter = model.blocks * trl_lora.RANK * (11 * model.width + 3 * model.inner) * OPTIMIZED
    if where.gpus:
        return (BYTES[where.precision] * model.weights + adapter) / where.gpus
    return (FLOAT + HALF * model.half) * model.weights + adapter


def told(found: Needs, where: Where) -> str:
    """What a training takes, before it starts."""
    memory = f"TRL's training takes about {found.memory / 1e9:.1f} GB of memory"
    if where.gpus:
        return f"{memory} on each GPU; how long is told after its first steps"
    return f"{memory} and at most {duration(found.seconds)}"

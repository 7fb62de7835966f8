"""LoRA on the CPU or a GPU: labelled chat rows + base weights → an adapter file. Knows no DSPy and
no statistics.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.catalogue import in_catalogue
from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError
from optimize.finetune.epoch import Epoch, Say, TrainingProgress, kept, silent
from optimize.finetune.lora.adapter_gguf import Served, check_architecture, write_adapter
from optimize.finetune.lora.cut import BATCH, PIECE, CutModel, EncodedRow, batches
from optimize.finetune.lora.model import (
    ALPHA,
    RANK,
    adapt,
    base_identity,
    check_base,
    linear,
    load_config,
    load_model,
    parameters,
    weights,
)
from optimize.finetune.lora.needs import Needs, Shape, duration, needs, pieces, shape
from optimize.finetune.lora.objective import Lesson, compared, lesson, loss
from optimize.finetune.lora.served import ServedLM
from optimize.gguf_header import read_header
from optimize.lm.embedded import context_of
from optimize.threads import free_memory, own_memory
from optimize.turns import my_turn

LEARNING_RATE = 1e-3
WARMUP = 10  # steps
PATIENCE = 2  # epochs without a better one on val
SHARE = 0.5  # of the blocks, from the top
MEASURED = 3  # steps after which what was said beforehand is compared


def check_config(config: RunConfig) -> None:
    """Raises WorkbenchError where a LoRA could not be trained or served."""
    if not is_local(config.lm):
        raise WorkbenchError(
            f"LoRA trains an LM that runs in this process (`optimize lm list`), not {config.lm!r}. "
            "Use --finetune openai or bundle."
        )
    missing = [name for name in ("torch", "transformers", "peft") if not find_spec(name)]
    if missing:
        raise WorkbenchError(
            f"LoRA training needs {', '.join(missing)}: pip install 'optimize-workbench[lora]' "
            "(without a GPU, install a CPU build of torch first)."
        )
    if not in_catalogue(config.lm):
        path = Path(config.lm.removeprefix("gguf:")).expanduser()
        check_architecture(read_header(path).architecture)
        check_base(config.finetune_base or str(path))
    elif config.finetune_base:
        check_base(config.finetune_base)


def train(
    rows: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
    base: str,
    out: Path,
    config: RunConfig,
    progress: TrainingProgress,
    say: Say = silent,
) -> str:
    """Train on `{"messages": […, assistant]}` rows, or `{"prompt", "chosen", "rejected"}` ones, and
    write the adapter, named by what it was made from.

    The loss (optimize.finetune.lora.objective) is on the answer's tokens only. Batches hold rows of
    like length. Training stops early on val, and the epoch that answers most val rows word for word
    is kept, of equals the one with the lowest loss. The same rows, base and config give the same
    file, which is then reused; a training that was killed goes on from its last whole epoch. Beside
    the adapter lies the `curve` of its epochs. Rows longer than the LM may read where it is served
    are left out, which is said, as is what the training takes. Raises WorkbenchError for weights
    that are not those that are served, and where memory does not suffice.
    """
    path = lms.gguf_path(config.lm)
    assert path, "check_config lets local LMs pass only"
    context = context_of(path, config.context)
    recipe = [config.seed, config.epochs, RANK, ALPHA, BATCH, PIECE, LEARNING_RATE, SHARE, context]
    made_of = [rows, val, base_identity(base), *recipe]
    identity = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    target = out / f"{identity}.gguf"
    if target.is_file():
        return str(target)
    import torch

    torch.manual_seed(config.seed)
    before = _held()
    out.mkdir(parents=True, exist_ok=True)
    engine, served, known = ServedLM(path), Served(path), load_config(base)
    lessons = _readable(engine, rows, context, "train", say)
    judged = [one.row for one in _readable(engine, val, context, "val", say)]
    first = int(known.num_hidden_layers * (1 - SHARE))
    size = shape(known, parameters(known), first)
    _check_room(needs(size, lessons, judged, config.epochs))
    model = load_model(base, known, served)
    token_seconds = engine.check_same(model, [one.row for one in lessons])
    expected = needs(size, lessons, judged, config.epochs, token_seconds)
    say(f"LoRA training takes {expected}")
    modules = {n: module.weight.detach().numpy() for n, module in linear(model, first).items()}
    width = getattr(known, "head_dim", None) or known.hidden_size // known.num_attention_heads
    places = served.places(modules, known.num_hidden_layers, width)
    cut = CutModel(model.to("cuda" if torch.cuda.is_available() else "cpu"), first)
    lessons, judged = _kept(cut, lessons, judged, out, progress)
    lessons = compared(cut, lessons)
    adapted = adapt(model, places)
    checkpoint = target.with_suffix(".checkpoint")
    fit = _Fit(cut, adapted, lessons, judged, config, checkpoint, size, before)
    fit.run(progress, say)
    part = target.with_suffix(".part")
    trained = [(places[name], pair) for name, pair in fit.best.items()]
    write_adapter(part, served.architecture, trained, float(ALPHA))
    target.with_suffix(".json").write_text(
        json.dumps([epoch.model_dump() for epoch in fit.epochs]), encoding="utf-8"
    )
    part.replace(target)
    fit.checkpoint.unlink(missing_ok=True)
    return str(target)


def _readable(
    engine: ServedLM, rows: Sequence[dict[str, Any]], context: int, kind: str, say: Say
) -> list[Lesson]:
    """The rows as token ids, without those that the LM could not read where it is served.

    Raises WorkbenchError where there are none.
    """
    found = [lesson(engine.rows(row)) for row in rows]
    fitting = [one for one in found if max(map(len, one.rows)) <= context]
    if left := len(found) - len(fitting):
        longest = max(len(row) for one in found for row in one.rows)
        told = (
            f"{left} of {len(found)} {kind} rows are longer than the {context} tokens that the LM "
            f"may read (the longest has {longest})"
        )
        if not fitting:
            raise WorkbenchError(f"All {told}. Allow more by --context, or shorten the rows.")
        say(f"{told}: they are left out of the training. --context allows more.")
    return fitting


def _check_room(expected: Needs) -> None:
    """Raises WorkbenchError where the training would take more memory than there is."""
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
    else:
        free = free_memory()
    if expected.memory > free:
        raise WorkbenchError(
            f"LoRA training would take about {expected.memory / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free. Tune a smaller LM, shorten the longest rows, or use "
            "--finetune bundle to train elsewhere."
        )


def _held() -> int:
    """Bytes in use: of this process, or of the GPU at most so far."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return own_memory()


def _kept(
    cut: CutModel,
    lessons: Sequence[Lesson],
    judged: Sequence[EncodedRow],
    scratch: Path,
    progress: TrainingProgress,
) -> tuple[list[Lesson], list[EncodedRow]]:
    """The same rows with what the lower blocks say of them."""
    rows = [row for one in lessons for row in one.rows]
    found = iter(cut.keep([*rows, *judged], scratch, progress))
    read = [lesson([next(found) for _ in one.rows]) for one in lessons]
    return read, list(found)


def curve(tuned: str) -> list[Epoch]:
    """The epochs of the training that made this adapter; none where that was not written down."""
    path = Path(tuned).with_suffix(".json")
    return (
        [Epoch(**epoch) for epoch in json.loads(path.read_text(encoding="utf-8"))]
        if path.is_file()
        else []
    )


class _Fit:
    """The adapter weights of the epoch that does best on val.

    Not the one with the lowest loss: confidence in wrong answers raises it while more answers turn
    right (docs/results.md). Written down after each epoch, whole, so that a killed training loses
    no more than one.
    """

    def __init__(
        self,
        model: CutModel,
        adapted: Any,
        rows: list[Lesson],
        val: list[EncodedRow],
        config: RunConfig,
        checkpoint: Path,
        size: Shape,
        before: int,
    ) -> None:
        import torch

        self.model, self.adapted, self.size = model, adapted, size
        self.rows, self.val, self.checkpoint = rows, val, checkpoint
        self.before, self.held = before, 0  # bytes
        self.took: list[float] = []  # seconds of each step
        self.trainable = [p for p in adapted.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=LEARNING_RATE)
        self.most, self.steps, self.done = config.epochs, config.epochs * len(batches(rows)), 0
        self.rng = random.Random(config.seed)
        self.epochs: list[Epoch] = []
        self.best = weights(adapted)

    def run(self, progress: TrainingProgress, say: Say) -> None:
        if self.checkpoint.is_file():
            self._restore()
        while len(self.epochs) < self.most and self._stale() < PATIENCE:
            start = time.perf_counter()
            train_loss = self._pass(progress, say)
            right, minus_loss = self.model.judge(self.val)
            seconds = time.perf_counter() - start
            self.epochs.append(
                Epoch(
                    train_loss=train_loss,
                    val_loss=-minus_loss,
                    val_right=right,
                    seconds=round(seconds, 3),
                )
            )
            if self._stale() == 0:
                self.best = weights(self.adapted)
            self._save()
        best = self.epochs[kept(self.epochs)]
        progress(
            self.steps,
            self.steps,
            f"val: {best.val_right:.0%} of the answers right, loss {best.val_loss:.3f}",
        )

    def _pass(self, progress: TrainingProgress, say: Say) -> float:
        """One epoch of steps; its mean loss."""
        order, losses = batches(self.rows), []
        self.rng.shuffle(order)
        for batch in order:
            start = time.perf_counter()
            for group in self.optimizer.param_groups:
                group["lr"] = (
                    LEARNING_RATE
                    * min(1.0, (self.done + 1) / WARMUP)
                    * (1 - self.done / self.steps)
                )
            with my_turn():
                losses.append(self._step(batch))
            self.done += 1
            seconds = time.perf_counter() - start
            speed = sum(len(row) for one in batch for row in one.rows) / seconds
            self._measured(seconds, say)
            progress(self.done, self.steps, f"loss {losses[-1]:.3f}, {speed:.0f} tokens/s")
        return float(sum(losses) / len(losses))

    def _measured(self, seconds: float, say: Say) -> None:
        """Say, after a few steps, what they took: what was said beforehand was arithmetic."""
        self.took.append(seconds)
        if len(self.took) == MEASURED:
            left = sum(self.took) / MEASURED * (self.steps - self.done)
            say(
                f"Measured on the first {MEASURED} steps: {self.held / 1e9:.1f} GB of memory for "
                f"the training, at most {duration(left)} left for the steps"
            )

    def _step(self, batch: list[Lesson]) -> float:
        import torch

        total = 0.0
        for piece in pieces(batch, self.size):
            value = loss(self.model, piece, batch)
            self.held = max(self.held, _held() - self.before)
            value.backward()
            total += float(value.item())
        torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _stale(self) -> int:
        """Epochs since the best one."""
        return len(self.epochs) - 1 - kept(self.epochs) if self.epochs else 0

    def _save(self) -> None:
        import torch

        state = {
            "adapter": [p.detach().cpu() for p in self.trainable],
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.getstate(),
            "done": self.done,
            "epochs": [epoch.model_dump() for epoch in self.epochs],
            "best": {name: [torch.from_numpy(w) for w in pair] for name, pair in self.best.items()},
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def _restore(self) -> None:
        import torch

        state = torch.load(self.checkpoint, weights_only=True)
        with torch.no_grad():
            for parameter, saved in zip(self.trainable, state["adapter"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.setstate(state["rng"])
        self.done = state["done"]
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.best = {name: tuple(w.numpy() for w in pair) for name, pair in state["best"].items()}

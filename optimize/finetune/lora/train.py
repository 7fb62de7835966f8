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

from optimize.catalogue import in_catalogue
from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError
from optimize.finetune.epoch import Epoch, TrainingProgress, kept
from optimize.finetune.lora.adapter_gguf import check_architecture, write_adapter
from optimize.finetune.lora.model import (
    ALPHA,
    BATCH,
    RANK,
    EncodedRow,
    adapt,
    base_identity,
    batches,
    below,
    check_base,
    judge,
    load_model,
    weights,
)
from optimize.finetune.lora.objective import Lesson, encode_lessons, loss, texts
from optimize.gguf_header import read_header
from optimize.turns import my_turn

LEARNING_RATE = 1e-3
WARMUP = 10  # steps
PATIENCE = 2  # epochs without a better one on val
SHARE = 0.5  # of the blocks, from the top


def check_config(config: RunConfig) -> None:
    """Raises WorkbenchError where a LoRA could not be trained or served."""
    if not is_local(config.lm):
        raise WorkbenchError(
            f"LoRA trains an LM that runs in this process (`optimize lm list`), not {config.lm!r}. "
            "Use --finetune openai or bundle."
        )
    known = in_catalogue(config.lm)
    path = Path(config.lm.removeprefix("gguf:")).expanduser()
    check_architecture(known.architecture if known else read_header(path).architecture)
    missing = [name for name in ("torch", "transformers", "peft") if not find_spec(name)]
    if missing:
        raise WorkbenchError(
            f"LoRA training needs {', '.join(missing)}: pip install 'optimize-workbench[lora]' "
            "(without a GPU, install a CPU build of torch first)."
        )
    if config.finetune_base:
        check_base(config.finetune_base)


def train(
    rows: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
    base: str,
    out: Path,
    config: RunConfig,
    progress: TrainingProgress,
) -> str:
    """Train on `{"messages": […, assistant]}` rows, or `{"prompt", "chosen", "rejected"}` ones, and
    write the adapter, named by what it was made from.

    The loss (optimize.finetune.lora.objective) is on the answer's tokens only. Batches hold rows of
    like length. Training stops early on val, and the epoch that answers most val rows word for word
    is kept, of equals the one with the lowest loss. The same rows, base and config give the same
    file, which is then reused; a training that was killed goes on from its last whole epoch. Beside
    the adapter lies the `curve` of its epochs. Raises WorkbenchError for weights of an architecture
    that could not be served afterwards.
    """
    recipe = [config.seed, config.epochs, RANK, ALPHA, BATCH, LEARNING_RATE, SHARE]
    made_of = [rows, val, base_identity(base), *recipe]
    identity = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    target = out / f"{identity}.gguf"
    if target.is_file():
        return str(target)
    import torch

    torch.manual_seed(config.seed)
    model, tokenizer = load_model(base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    first = int(model.config.num_hidden_layers * (1 - SHARE))
    encoded = [texts(tokenizer, row) for row in (*rows, *val)]
    cached = iter(below(model, first, [text for row in encoded for text in row], device, progress))
    read = [[next(cached) for _ in row] for row in encoded]
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    out.mkdir(parents=True, exist_ok=True)
    learned = encode_lessons(model, read[: len(rows)])
    fit = _Fit(
        adapt(model),
        learned,
        [row for (row,) in read[len(rows) :]],
        config,
        target.with_suffix(".checkpoint"),
    )
    fit.run(progress)
    part = target.with_suffix(".part")
    write_adapter(
        part,
        {(block + first, name): pair for (block, name), pair in fit.best.items()},
        float(ALPHA),
        heads,
    )
    target.with_suffix(".json").write_text(
        json.dumps([epoch.model_dump() for epoch in fit.epochs]), encoding="utf-8"
    )
    part.replace(target)
    fit.checkpoint.unlink(missing_ok=True)
    return str(target)


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
        adapted: Any,
        rows: list[Lesson],
        val: list[EncodedRow],
        config: RunConfig,
        checkpoint: Path,
    ) -> None:
        import torch

        self.adapted, self.rows, self.val, self.checkpoint = adapted, rows, val, checkpoint
        self.model = adapted.get_base_model()
        self.trainable = [p for p in adapted.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=LEARNING_RATE)
        self.most, self.steps, self.done = config.epochs, config.epochs * len(batches(rows)), 0
        self.rng = random.Random(config.seed)
        self.epochs: list[Epoch] = []
        self.best = weights(adapted)

    def run(self, progress: TrainingProgress) -> None:
        if self.checkpoint.is_file():
            self._restore()
        while len(self.epochs) < self.most and self._stale() < PATIENCE:
            start = time.perf_counter()
            train_loss = self._pass(progress)
            right, minus_loss = judge(self.model, self.val)
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

    def _pass(self, progress: TrainingProgress) -> float:
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
            speed = sum(len(row) for lesson in batch for row in lesson.rows) / (
                time.perf_counter() - start
            )
            progress(self.done, self.steps, f"loss {losses[-1]:.3f}, {speed:.0f} tokens/s")
        return float(sum(losses) / len(losses))

    def _step(self, batch: list[Lesson]) -> float:
        import torch

        value = loss(self.model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(value.item())

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

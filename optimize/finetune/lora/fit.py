"""The adapter's weights of the epoch that does best on val: steps, checkpoints, and their cost."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Any

from optimize.config import RunConfig
from optimize.finetune.epoch import Epoch, Say, Step, TrainingLog, TrainingProgress, kept
from optimize.finetune.handoff.recipes.trl_lora import WARMUP
from optimize.finetune.lora.cut import CutModel, EncodedRow, batches
from optimize.finetune.lora.model import weights
from optimize.finetune.lora.needs import Shape, duration, pieces
from optimize.finetune.lora.objective import Lesson, loss
from optimize.finetune.lora.served import ServedLM
from optimize.threads import own_memory
from optimize.turns import my_turn

PATIENCE = 2  # epochs without a better one on val
MEASURED = 3  # steps after which what was said beforehand is compared
SHOWN = 5  # val rows of which each epoch's answers are written down


def scheduled(done: int, steps: int) -> float:
    """Share of the highest rate for the next step: up in a straight line, then down to 0, as
    transformers' linear schedule and so the hand-off's recipe have it.
    """
    warm = math.ceil(WARMUP * steps)
    return (done + 1) / warm if done < warm else (steps - done) / max(1, steps - warm)


def held() -> int:
    """Bytes in use: of this process, or of the GPU at most so far."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return own_memory()


class Fit:
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
        rate: float,
        checkpoint: Path,
        size: Shape,
        before: int,
    ) -> None:
        import torch

        self.model, self.adapted, self.size = model, adapted, size
        self.rows, self.val, self.rate, self.checkpoint = rows, val, rate, checkpoint
        self.before, self.held = before, 0  # bytes
        self.took: list[float] = []  # seconds of each step
        self.trainable = [p for p in adapted.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=rate)
        self.most, self.steps, self.done = config.epochs, config.epochs * len(batches(rows)), 0
        self.rng = random.Random(config.seed)
        self.epochs: list[Epoch] = []
        self.best = weights(adapted)

    def run(self, progress: TrainingProgress, say: Say, log: TrainingLog, engine: ServedLM) -> None:
        """engine: what spells the answers that `log` is told."""
        if self.checkpoint.is_file():
            self._restore()
        while len(self.epochs) < self.most and self._stale() < PATIENCE:
            start = time.perf_counter()
            train_loss = self._pass(progress, say, log)
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
            samples = engine.samples(self.model, self.val[:SHOWN])
            log.epoch(len(self.epochs), self.epochs[-1], samples)
        best = self.epochs[kept(self.epochs)]
        progress(
            self.steps,
            self.steps,
            f"val: {best.val_right:.0%} of the answers right, loss {best.val_loss:.3f}",
        )

    def _pass(self, progress: TrainingProgress, say: Say, log: TrainingLog) -> float:
        """One epoch of steps; its mean loss."""
        order, losses = batches(self.rows), []
        self.rng.shuffle(order)
        for batch in order:
            start = time.perf_counter()
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * scheduled(self.done, self.steps)
            with my_turn():
                losses.append(self._step(batch))
            self.done += 1
            seconds = time.perf_counter() - start
            tokens = sum(len(row) for one in batch for row in one.rows)
            self._measured(seconds, say)
            log.step(Step(self.done, losses[-1], tokens, seconds, self.held))
            progress(
                self.done, self.steps, f"loss {losses[-1]:.3f}, {tokens / seconds:.0f} tokens/s"
            )
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
            self.held = max(self.held, held() - self.before)
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

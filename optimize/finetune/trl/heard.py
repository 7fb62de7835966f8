"""What the recipe tells of a training, as every backend reports one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from optimize.finetune.epoch import (
    Epoch,
    Sample,
    Say,
    Step,
    TrainingLog,
    TrainingProgress,
)
from optimize.finetune.handoff.recipes.trl_lora import PROGRESS
from optimize.finetune.lora.needs import duration
from optimize.finetune.trl.launch import Line

MEASURED = 3  # steps after which the time that is left is told


class Heard:
    """Tells what it hears to whoever watches and writes down. Steps and epochs of a training are
    numbered on from those of the trainings before it.
    """

    def __init__(self, progress: TrainingProgress, say: Say, log: TrainingLog | None) -> None:
        self.progress, self.say, self.log = progress, say, log or TrainingLog()
        self.steps = self.epochs = 0
        self.took: list[float] = []  # seconds of each step heard of this training
        self.since = 0.0  # seconds of steps since the last epoch's end

    def __call__(self, line: Line) -> None:
        if "note" in line:
            self.say(line["note"])
        elif "val_loss" not in line:
            self._step(line)
        elif line["step"]:
            found = [Sample(**one) for one in line["samples"]]
            self.log.epoch(self.epochs + line["epoch"], _epoch(line, self.since), found)
            self.since = 0.0

    def ended(self, out: Path) -> None:
        """The training in that folder is done."""
        lines = list(_lines(out))
        self.steps += max((line["step"] for line in lines), default=0)
        self.epochs += max((line.get("epoch", 0) for line in lines), default=0)
        self.took, self.since = [], 0.0

    def _step(self, line: Line) -> None:
        step, seconds = line["step"], line["seconds"]
        told = line["loss"], line["tokens"], seconds, line["memory"]
        self.log.step(Step(self.steps + step, *told))
        self.progress(
            step, line["of"], f"loss {line['loss']:.3f}, {line['tokens'] / seconds:.0f} tokens/s"
        )
        self.since += seconds
        self.took.append(seconds)
        if len(self.took) == MEASURED:
            left = sum(self.took[1:]) / (MEASURED - 1)  # the first one has loaded the base as well
            self.say(
                f"Measured on the first {MEASURED} steps: {line['memory'] / 1e9:.1f} GB of memory, "
                f"at most {duration(left * (line['of'] - step))} left for the steps"
            )


def curve_of(trainings: Sequence[Path]) -> list[Epoch]:
    """The epochs of trainings one after the other, also those before a kill."""
    found = []
    for out in trainings:
        steps: dict[int, float] = {}
        ends: dict[int, Line] = {}
        for line in _lines(out):  # of what was done twice the last time counts
            if "val_loss" in line:
                ends[line["step"]] = line
            elif "loss" in line:
                steps[line["step"]] = line["seconds"]
        last = 0
        for number in sorted(set(ends) - {0}):
            took = sum(seconds for step, seconds in steps.items() if last < step <= number)
            found.append(_epoch(ends[number], took))
            last = number
    return found


def _epoch(line: Line, seconds: float) -> Epoch:
    """seconds: of its steps."""
    return Epoch(
        train_loss=line["train_loss"],
        val_loss=line["val_loss"],
        val_right=line["val_right"],
        seconds=round(seconds + line["seconds"], 3),
    )


def _lines(out: Path) -> Iterator[Line]:
    for text in (out / PROGRESS).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "note" not in line:
            yield line

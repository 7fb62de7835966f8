"""LoRA on the upper half of the blocks against all of them: seconds, val loss, val score of the
tuned LM on tickets.

python bench/lora_share.py         # about half an hour on two slow cores
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import dspy
from rich.console import Console
from rich.table import Table

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.data.rows import load_splits
from optimize.finetune.epoch import TrainingLog
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora.trainings import Trainings
from optimize.finetune.training_rows import chat_rows, tuned_student
from optimize.lm import weights
from optimize.lm.meter import Meter
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from optimize.task import load_task


def main() -> None:
    task = load_task("tickets", Path())
    splits = load_splits(task)
    program = tuned_student(student(task))
    rows, val = chat_rows(program, splits.train), chat_rows(program, splits.val)
    base = weights.pull_embedded(print)
    table = Table("blocks adapted", "training s", "val loss", "score on val [95 %]")
    for share in (0.5, 1.0):
        notes: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            lms.configure(Path(folder))
            start = time.perf_counter()
            given = rows, val, str(base), Path(folder), RunConfig()
            told = partial(lambda to, *shown: to.append(shown[2]), notes)
            trainings = Trainings(TrainingJob(*given, told))
            adapter = trainings.train(replace(trainings.own, share=share), TrainingLog())
            seconds = time.perf_counter() - start
            with dspy.context(lm=lms.local_lm(base, Path(adapter), Meter(10_000), task.max_tokens)):
                score = evaluate(program, splits.val, Asking(task, threads=4)).interval
        table.add_row(
            f"{share:.0%}",
            f"{seconds:.0f}",
            notes[-1].split()[-1],
            f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]",
        )
    Console().print(table)


if __name__ == "__main__":
    main()

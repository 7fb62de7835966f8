"""A training as a run of its own inside the command's: its losses as they come, what it says of a
few val rows after each epoch, and the adapter that it made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optimize.finetune.epoch import Epoch, Sample, Step, TrainingLog, kept
from optimize.lm.weights import sha256
from optimize.stats.records import ScoreRecord
from optimize.store import shown
from optimize.store.tags import status

EVERY = 5.0  # seconds at most for which steps are held back, so that a short step is not slowed
SAMPLES = "samples.json"
MOST = 1000  # metrics that MLflow takes at once
Point = tuple[str, float, int]  # a metric, its value, its step


class TrainingRun(TrainingLog):
    """Use as a context manager: what ends the training ends the run.

    An epoch's number is its metrics' step, a step's number that of its own.
    """

    def __init__(self, store: Any, run: str) -> None:
        self.client, self.id = store, run
        self._held: list[Point] = []
        self._written = time.monotonic()
        self._steps, self._told = 0, set[int]()  # epochs
        self._said: dict[str, list[dict[str, str]]] = {}

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._write()
        self.client.set_terminated(self.id, status(kind))

    def step(self, step: Step) -> None:
        self._steps = step.number
        told = {
            "train_loss": step.loss,
            "tokens_per_second": step.tokens / max(step.seconds, 1e-9),
            "memory_gb": step.memory / 1e9,
        }
        self._held += [(name, value, step.number) for name, value in told.items()]
        if time.monotonic() - self._written > EVERY:
            self._write()

    def epoch(self, number: int, epoch: Epoch, samples: Sequence[Sample]) -> None:
        self._told.add(number)
        told = {
            "epoch_train_loss": epoch.train_loss,
            "epoch_val_loss": epoch.val_loss,
            "epoch_val_right": epoch.val_right,
            "epoch_seconds": epoch.seconds,
        }
        self._held += [(name, value, number) for name, value in told.items()]
        self._write()
        if samples:
            self._said[f"epoch {number}"] = [one.model_dump() for one in samples]
            text = json.dumps(self._said, indent=1, ensure_ascii=False)
            self.client.log_text(self.id, text, SAMPLES)

    def trained(self, tuned: str, epochs: Sequence[Epoch]) -> None:
        """What came of it. tuned: the adapter file, or the provider's name of the model. epochs:
        all, also those before a kill, or of a training that was done before.
        """
        for number, epoch in enumerate(epochs, 1):
            if number not in self._told:
                self.epoch(number, epoch, ())
        params = {"tuned": Path(tuned).name, "steps_now": self._steps}
        if epochs:
            params |= {"epochs_run": len(epochs), "epoch_kept": kept(epochs) + 1}
        if Path(tuned).is_file():
            params["adapter_sha256"] = sha256(Path(tuned))
            self.client.log_artifact(self.id, tuned)
        for name, value in params.items():
            self.client.log_param(self.id, name, value)

    def judged(self, score: ScoreRecord) -> None:
        """On val, in the program that it was trained for."""
        told = {"val_score": score.score, "val_score_low": score.low, "val_score_high": score.high}
        self._held += [(name, value, 0) for name, value in told.items()]
        self._write()

    def _write(self) -> None:
        """What was held back, in one transaction."""
        from mlflow.entities import Metric

        held, self._held, self._written = self._held, [], time.monotonic()
        now = int(time.time() * 1000)
        found = [Metric(name, shown.rounded(value), now, step) for name, value, step in held]
        for start in range(0, len(found), MOST):
            self.client.log_batch(self.id, found[start : start + MOST])


def training_params(
    backend: str, made_of: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, str]:
    """What tells this training from others. config: the run's knobs."""
    knobs = {name: config.get(name) for name in ("lm", "seed", "method", "epochs", "teacher")}
    found = {"trainer": backend, **knobs, **made_of}
    return {name: str(value) for name, value in found.items() if value is not None}

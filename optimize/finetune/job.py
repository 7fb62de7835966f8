"""What every backend is given to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.config import RunConfig
from optimize.finetune.epoch import Say, TrainingProgress, silent

Row = dict[str, Any]


@dataclass(frozen=True)
class TrainingJob:
    """rows: `{"messages": […, assistant]}`, or preferences, `{"prompt", "chosen", "rejected"}`.
    val: of the first form. base: weights, a file, a folder or a name. out: where trained weights
    and what is known of their trainings lie.
    """

    rows: Sequence[Row]
    val: Sequence[Row]
    base: str
    out: Path
    config: RunConfig
    progress: TrainingProgress
    say: Say = silent

"""LoRA on the CPU or a GPU: labelled chat rows + base weights → an adapter file. Knows no DSPy and
no statistics.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optimize.catalogue import in_catalogue
from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError
from optimize.finetune.epoch import Epoch, TrainingLog, read_curve
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora.adapter_gguf import check_architecture
from optimize.finetune.lora.model import check_base
from optimize.finetune.lora.trainings import Trainings
from optimize.gguf_header import read_header


def check_config(config: RunConfig) -> None:
    """Raises WorkbenchError where a LoRA could not be trained or served."""
    if not is_local(config.lm):
        raise WorkbenchError(
            f"LoRA trains an LM that runs in this process (`optimize lm list`), not {config.lm!r}. "
            "Its provider may (openai), or train elsewhere from `optimize handoff`."
        )
    missing = [name for name in ("torch", "transformers", "peft") if not find_spec(name)]
    if missing:
        raise WorkbenchError(
            f"LoRA training needs {', '.join(missing)}: pip install 'optimize-workbench[lora]' "
            "(without a GPU, install a CPU build of torch first)."
        )
    check_weights(config)


def check_weights(config: RunConfig) -> None:
    """Raises WorkbenchError where the weights of a local LM are of an unknown kind, or those that
    it is to be trained on cannot be read.
    """
    if not in_catalogue(config.lm):
        path = Path(config.lm.removeprefix("gguf:")).expanduser()
        check_architecture(read_header(path).architecture)
        check_base(config.finetune_base or str(path))
    elif config.finetune_base:
        check_base(config.finetune_base)


def recipe(job: TrainingJob) -> dict[str, Any]:
    """What the trainer sets by itself."""
    return Trainings(job).own.params


def train(job: TrainingJob, log: TrainingLog | None = None) -> str:
    """Train on chat rows or preferences and write the adapter, named by what it was made from.

    The loss (optimize.finetune.lora.objective) is on the answer's tokens only. Batches hold rows of
    like length. Training stops early on val, and the epoch that answers most val rows word for word
    is kept, of equals the one with the lowest loss. The same rows, base and config give the same
    file, which is then reused; a training that was killed goes on from its last whole epoch. Beside
    the adapter lies the `curve` of its epochs. Rows longer than the LM may read where it is served
    are left out, which is said, as is what the training takes. Raises WorkbenchError for weights
    that are not those that are served, and where memory does not suffice.
    """
    trainings = Trainings(job)
    own = trainings.own
    if not trainings.target(own).is_file():
        trainings.measure(own)
        job.say(f"LoRA training takes {trainings.needs(own)}")
    return trainings.train(own, log or TrainingLog())


def curve(tuned: str, out: Path | None = None) -> list[Epoch]:
    """The epochs of the training that made this adapter; none where that was not written down."""
    return read_curve(Path(tuned).with_suffix(".json"))

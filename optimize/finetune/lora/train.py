"""LoRA on the CPU or a GPU: labelled chat rows + base weights → an adapter file. Knows no DSPy and
no statistics.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.catalogue import in_catalogue
from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError
from optimize.finetune.epoch import Epoch, Say, TrainingLog, TrainingProgress, silent
from optimize.finetune.lora.adapter_gguf import Place, Served, check_architecture, write_adapter
from optimize.finetune.lora.cut import BATCH, PIECE, CutModel, EncodedRow, fast_bf16, fits
from optimize.finetune.lora.fit import LEARNING_RATE, Fit, held
from optimize.finetune.lora.model import (
    ALPHA,
    RANK,
    adapt,
    base_identity,
    check_base,
    head_width,
    linear,
    load_config,
    load_model,
    parameters,
)
from optimize.finetune.lora.needs import Needs, needs, shape
from optimize.finetune.lora.objective import Lesson, compared, lesson
from optimize.finetune.lora.served import ServedLM, readable
from optimize.gguf_header import read_header
from optimize.lm.embedded import context_of
from optimize.threads import free_memory

SHARE = 0.5  # of the blocks, from the top
RECIPE = {
    "rank": RANK,
    "alpha": ALPHA,
    "batch": BATCH,
    "learning_rate": LEARNING_RATE,
    "blocks_trained": SHARE,
}


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


def train(
    rows: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
    base: str,
    out: Path,
    config: RunConfig,
    progress: TrainingProgress,
    say: Say = silent,
    log: TrainingLog | None = None,
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
    path, context = _served(config)
    recipe = [config.seed, config.epochs, RANK, ALPHA, BATCH, PIECE, LEARNING_RATE, SHARE, context]
    made_of = [rows, val, base_identity(base), *recipe]
    identity = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    target = out / f"{identity}.gguf"
    if target.is_file():
        return str(target)
    out.mkdir(parents=True, exist_ok=True)
    fit, places = _prepared(rows, val, base, target, config, progress, say)
    fit.run(progress, say, log or TrainingLog(), ServedLM(path))
    part = target.with_suffix(".part")
    trained = [(places[name], pair) for name, pair in fit.best.items()]
    write_adapter(part, read_header(path).architecture, trained, float(ALPHA))
    target.with_suffix(".json").write_text(
        json.dumps([epoch.model_dump() for epoch in fit.epochs]), encoding="utf-8"
    )
    part.replace(target)
    fit.checkpoint.unlink(missing_ok=True)
    return str(target)


def _served(config: RunConfig) -> tuple[Path, int]:
    """The file that is served, and how many tokens the LM may read there."""
    path = lms.gguf_path(config.lm)
    assert path, "check_config lets local LMs pass only"
    return path, context_of(path, config.context)


def _prepared(
    rows: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
    base: str,
    target: Path,
    config: RunConfig,
    progress: TrainingProgress,
    say: Say,
) -> tuple[Fit, dict[str, Place]]:
    """All that comes before the first step: rows read, room looked for, weights loaded and held
    against the served ones.
    """
    import torch

    torch.manual_seed(config.seed)
    before, (path, context) = held(), _served(config)
    engine, served, known = ServedLM(path), Served(path), load_config(base)
    lessons = [lesson(read) for _, read in readable(engine, rows, context, "train", say)]
    judged = [read[0] for _, read in readable(engine, val, context, "val", say)]
    first = int(known.num_hidden_layers * (1 - SHARE))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = shape(known, parameters(known), first, fast_bf16(device))
    asked = size, lessons, judged, config.epochs
    kept = fits(needs(*asked).disk, target.parent)
    check_room(needs(*asked, kept=kept))
    model = load_model(base, known, served)
    modules = {name: one.weight.detach().numpy() for name, one in linear(model, first).items()}
    places = served.places(modules, known.num_hidden_layers, head_width(known))
    cut = CutModel(model.to(device), first)
    taught = [one.row for one in lessons]
    engine.check_same(model, taught)
    took = cut.token_seconds(taught)
    say(f"LoRA training takes {needs(*asked, took, kept)}")
    lessons, judged = _kept(cut, lessons, judged, target.parent, progress)
    lessons = compared(cut, lessons)
    checkpoint = target.with_suffix(".checkpoint")
    fit = Fit(cut, adapt(model, places), lessons, judged, config, checkpoint, size, before)
    return fit, places


def check_room(expected: Needs) -> None:
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


def curve(tuned: str, out: Path | None = None) -> list[Epoch]:
    """The epochs of the training that made this adapter; none where that was not written down."""
    path = Path(tuned).with_suffix(".json")
    return (
        [Epoch(**epoch) for epoch in json.loads(path.read_text(encoding="utf-8"))]
        if path.is_file()
        else []
    )

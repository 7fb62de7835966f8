"""SFT by TRL, then DPO or KTO where that is asked for: labelled chat rows and a transformers base
in, an adapter out. Knows no DSPy and no statistics.

The recipe is the hand-off's own, so what is trained here and elsewhere is trained alike.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError
from optimize.finetune import PREFERRING, training_id
from optimize.finetune.epoch import Epoch, TrainingLog, read_curve, write_curve
from optimize.finetune.handoff.recipes import trl_lora
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora.adapter_peft import to_gguf
from optimize.finetune.lora.model import base_identity, check_base, width_of
from optimize.finetune.lora.room import check_room
from optimize.finetune.lora.train import check_weights
from optimize.finetune.trl import launch, vllm
from optimize.finetune.trl.base import Where, expected_of, served_base, told
from optimize.finetune.trl.folder import written
from optimize.finetune.trl.heard import Heard, curve_of
from optimize.finetune.trl.launch import Launch, Line

NEEDED = ("torch", "transformers", "peft", "trl", "accelerate")


def check_config(config: RunConfig) -> None:
    """Raises WorkbenchError where TRL could not train, or the LM that it trained not be asked."""
    check_setup(config)
    here = launch.gpus_here()
    if config.gpus is not None and config.gpus > here:
        raise WorkbenchError(
            f"--gpus {config.gpus}: this machine has {here}. Give fewer (0: the processor), "
            "or see by --dry-run what a machine with more would run."
        )


def check_setup(config: RunConfig) -> None:
    """The same without asking for GPUs: a dry run may be for another machine."""
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise WorkbenchError(
            f"TRL's training needs {', '.join(missing)}: pip install 'optimize-workbench[trl]' "
            "(without a GPU, install a CPU build of torch first)."
        )
    if not is_local(config.lm) and not (config.api_base and config.finetune_base):
        raise WorkbenchError(
            f"--finetune trl trains weights that are here. Of a hosted LM such as {config.lm!r} it "
            "needs --finetune-base, a transformers folder or hub name, and --api-base, where vLLM "
            "serves it. For a provider's own tuning use --finetune openai or handoff."
        )
    if is_local(config.lm):
        check_weights(config)
    else:
        check_base(str(config.finetune_base))


def recipe(job: TrainingJob) -> dict[str, Any]:
    """What the trainer sets by itself."""
    rate = trl_lora.rate_of(width_of(job.base), len(job.rows), job.config.epochs)
    knobs = {"rank": trl_lora.RANK, "alpha": trl_lora.ALPHA, "batch": trl_lora.BATCH}
    return knobs | {"learning_rate": rate}


def train(job: TrainingJob, log: TrainingLog | None = None) -> str:
    """Train on chat rows; of preferences first on the chosen answers, then, by --method, on the
    preference.

    What comes back is what our own trainer gives: for an LM in this process the adapter as a GGUF
    file, beside it its `curve`; for one that vLLM serves the name that the adapter has there. The
    same rows, base and config give the same adapter, which is then reused, and go on where they
    were stopped or killed. In `IDENTITY.trl` lies all that was run, with the PEFT folder.

    Raises WorkbenchError where base and served LM are not the same, memory does not suffice, or the
    training fails.
    """
    rows, val, base, out, config = job.rows, job.val, job.base, job.out, job.config
    where, local = _where(base, config), is_local(config.lm)
    made_of = [rows, val, base_identity(base), config.seed, config.epochs, config.method]
    made_of += [recipe(job), where.gpus > 0, where.precision, config.context]
    identity = training_id(made_of)
    target, folder = out / f"{identity}.gguf", out / f"{identity}.trl"
    if target.is_file():
        return str(target)
    served = served_base(base, config) if local else None
    # what was trained and not served yet is served now, whatever memory that has taken since
    trained = all(
        (folder / s.out / trl_lora.WEIGHTS).is_file() for s in _stages(base, config, where)
    )
    if served:
        found = served.checked(rows, val, where, config.epochs, job.say)
        rows, val, where = found.rows, found.val, found.where
    else:
        where, size = expected_of(base, rows, val, where, config.epochs)
        if not trained:
            check_room(size, where.gpus > 0)
        job.say(told(size, where))
    written(folder, rows, val, base, config, where)
    stages = _stages(base, config, where)
    job.say(f"TRL trains on {where}, in {folder}")
    run(Launch(folder, where.gpus, Path(base).exists()), stages, Heard(job.progress, job.say, log))
    epochs = curve_of([folder / stage.out for stage in stages])
    last = folder / stages[-1].out
    name = identity if served else f"{out.name}-{identity}".replace("_", "-").lower()
    write_curve(out / f"{name}.json", epochs)
    if served:
        to_gguf(last, served.path, target, found.places)
        return str(target)
    vllm.serve(config, name, last)
    return name


def curve(tuned: str, out: Path | None = None) -> list[Epoch]:
    """The epochs of the training that made this adapter; none where that was not written down. out:
    where it was trained to, which tells of one that is known by a name.
    """
    path = Path(tuned).with_suffix(".json") if out is None else out / f"{Path(tuned).stem}.json"
    return read_curve(path)


@dataclass(frozen=True)
class Plan:
    """What would be run: the folder it is written to, on what, the bytes of memory that it takes
    there, its commands, accelerate's configuration, and what checking found.
    """

    folder: Path
    where: Where
    memory: float
    commands: tuple[str, ...]
    accelerate: Line
    found: Line


def planned(
    rows: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
    base: str,
    out: Path,
    config: RunConfig,
) -> Plan:
    """What would be run on so many GPUs, as far as it can be said without training.

    Raises WorkbenchError for what accelerate, TRL or transformers refuse.
    """
    where, folder = _where(base, config), out / "dry_run.trl"
    shutil.rmtree(folder, ignore_errors=True)
    written(folder, rows, val, base, config, where)
    launched = Launch(folder, where.gpus, Path(base).exists())
    memory = 0
    if rows:
        where, size = expected_of(base, rows, val, where, config.epochs)
        memory = size.memory
    stages = _stages(base, config, where)
    found = [launched.check(stage.words) for stage in stages]
    config_file = json.loads((folder / launch.CONFIG).read_text(encoding="utf-8"))
    commands = tuple(launched.shown(*stage.words) for stage in stages)
    return Plan(folder, where, memory, commands, config_file, found[0])


@dataclass(frozen=True)
class Stage:
    """One training: where it goes to, and what the recipe is told."""

    out: str
    words: tuple[str, ...]


def _stages(base: str, config: RunConfig, where: Where) -> list[Stage]:
    longest = config.context or trl_lora.LONGEST
    if is_local(config.lm):
        longest = served_base(base, config).context
    place = str(Path(base).absolute()) if Path(base).exists() else base
    own = ["--base", place, "--precision", where.precision, "--max-length", str(longest)]
    own += ["--pieces", str(where.pieces)] if where.pieces > 1 else []
    found = [Stage("out/sft", ("--method", "sft", "--out", "out/sft", *own))]
    if config.method in PREFERRING:
        out = f"out/{config.method}"
        after = "--method", config.method, "--adapter", "out/sft", "--out", out
        found.append(Stage(out, (*after, *own)))
    return found


def run(launched: Launch, stages: Sequence[Stage], heard: Heard) -> None:
    """One training after the other; those that are done already are not run again."""
    for stage in stages:
        out = launched.folder / stage.out
        if not (out / trl_lora.WEIGHTS).is_file():
            launched.run(stage.out, stage.words, heard)
        for old in out.glob("checkpoint-*"):  # of one that was killed as it took them away
            shutil.rmtree(old)
        heard.ended(out)


def _where(base: str, config: RunConfig) -> Where:
    gpus = launch.gpus_here() if config.gpus is None else config.gpus
    return Where(gpus, launch.precision(gpus, Path(base).is_file()))

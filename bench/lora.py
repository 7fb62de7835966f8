"""Our LoRA training against TRL's SFTTrainer: same rows, base weights, rank, batch size, rate and
epochs; tokens/s and memory.

python bench/lora.py               # some ten minutes on two slow cores; --json for machines
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.printed import printed
from optimize.config import RunConfig
from optimize.data.rows import load_splits
from optimize.finetune.handoff.recipes.trl_lora import RANK, WARMUP, rate_of
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora import cut
from optimize.finetune.lora import model as lora_model
from optimize.finetune.lora import train as lora
from optimize.finetune.lora.adapter_gguf import Served
from optimize.finetune.lora.recipe import ALPHA
from optimize.finetune.lora.served import ServedLM
from optimize.finetune.training_rows import chat_rows, tuned_student
from optimize.lm import weights
from optimize.program.program import student
from optimize.task import load_task

EPOCHS = 2
TRAINERS = {
    "ours": "upper half of the blocks",
    "trl": "all blocks",
    "trl_half": "upper half of the blocks",
}


def measured(trainer: str, folder: Path) -> dict[str, Any]:
    """In a process of its own, so that its peak of memory is its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--alone", trainer, str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def alone(trainer: str, folder: Path) -> None:
    rows, val = json.loads((folder / "rows.json").read_text())
    start = time.perf_counter()
    judged = (
        ours(rows, val, folder)
        if trainer == "ours"
        else trl(rows, val, folder, half=trainer == "trl_half")
    )
    seconds, peak = (
        time.perf_counter() - start,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    )
    right, loss = judged()
    served = ServedLM(weights.pull_embedded(print))
    tokens = EPOCHS * sum(len(served.encode(row["messages"])) for row in rows)
    found = {
        "trainer": trainer,
        "adapts": TRAINERS[trainer],
        "tokens/s": round(tokens / seconds),
        "seconds": round(seconds),
    }
    print(
        json.dumps(
            found
            | {"peak GB": round(peak, 2), "val right": round(right, 2), "val loss": round(loss, 3)}
        )
    )


# share of val answers right word for word, and the loss of their tokens, after the last epoch
Judged = Callable[[], tuple[float, float]]


def ours(rows: list[Any], val: list[Any], folder: Path) -> Judged:
    given = rows, val, str(folder / "base"), folder / "ours", RunConfig(epochs=EPOCHS)
    adapter = lora.train(TrainingJob(*given, lambda *_: None))
    last = lora.curve(adapter)[-1]
    return lambda: (last.val_right, last.val_loss)


def trl(rows: list[Any], val: list[Any], folder: Path, half: bool) -> Judged:
    trainer = trl_trained(rows, val, folder / "base", folder / "trl", EPOCHS, half=half)

    def judged() -> tuple[float, float]:
        """As ours is, which leaves out the line break that a chat template puts after an answer."""
        model = cut.CutModel(trainer.model.get_base_model().eval(), 0)
        served = ServedLM(weights.pull_embedded(print))
        right, minus_loss = model.judge([served.encode(row["messages"]) for row in val])
        return right, -minus_loss

    return judged


def trl_trained(
    rows: list[Any],
    val: list[Any],
    base: Path,
    out: Path,
    epochs: int,
    seed: int = 42,
    half: bool = False,
) -> Any:
    """TRL's trainer when it is done. base: a folder of `base_folder`. half: the upper half of the
    blocks is adapted, else all.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    sides = [
        Dataset.from_list(
            [{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in side]
        )
        for side in (rows, val)
    ]
    config = SFTConfig(
        output_dir=str(out),
        num_train_epochs=epochs,
        seed=seed,
        learning_rate=rate_of(lora_model.width_of(str(base)), len(rows), epochs),
        warmup_steps=WARMUP,
        per_device_train_batch_size=cut.BATCH,
        per_device_eval_batch_size=cut.BATCH,
        bf16=cut.fast_bf16("cpu"),
        gradient_checkpointing=False,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    layers = json.loads((base / "config.json").read_text())["num_hidden_layers"]
    adapted = {"layers_to_transform": list(range(layers // 2, layers))} if half else {}
    peft = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        **adapted,
    )
    trainer = SFTTrainer(
        str(base), args=config, train_dataset=sides[0], eval_dataset=sides[1], peft_config=peft
    )
    trainer.train()
    return trainer


def base_folder(gguf: Path, folder: Path) -> Path:
    """The weights of a GGUF file as transformers keeps them, in that folder."""
    from transformers import AutoTokenizer

    if not (folder / "done").is_file():
        model = lora_model.load_model(str(gguf), lora_model.load_config(str(gguf)), Served(gguf))
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        # the values were put into plain float32 on loading, only the mark is left
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "done").touch()
    return folder


def main(json_: Annotated[bool, typer.Option("--json")] = False, rows: int = 200) -> None:
    task = load_task("tickets", Path(__file__).parents[1])
    splits, program = load_splits(task), tuned_student(student(task))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base_folder(weights.pull_embedded(print), folder / "base")
        taught = [chat_rows(program, splits.train[:rows]), chat_rows(program, splits.val)]
        (folder / "rows.json").write_text(json.dumps(taught))
        found = [measured(trainer, folder) for trainer in TRAINERS]
    printed(found, f"{len(taught[0])} rows, {EPOCHS} epochs", json_)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2], Path(sys.argv[3]))
    else:
        typer.run(main)

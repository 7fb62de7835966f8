"""Ready-to-run recipes that go into a hand-off beside the rows: scripts as they are, configurations
from the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from optimize.finetune.handoff.recipes.trl_lora import ALPHA, BATCH, LONGEST, RANK

SCRIPTS = ("trl_lora.py",)
LEARNING_RATE = 4e-4  # the base is anyone's: what `rate_of` says of an 8B
TEMPLATES = {"SmolLM2": "smollm2", "Qwen2.5": "qwen"}  # LLaMA-Factory's names, by the base's
UNKNOWN = "set/your-base-model"


def write_recipes(folder: Path, base: str | None, epochs: int, seed: int, pairs: bool) -> None:
    """TRL scripts, an Axolotl and a LLaMA-Factory configuration, below `folder`/recipes; paths in
    them start at `folder`.
    """
    out = folder / "recipes"
    out.mkdir(parents=True, exist_ok=True)
    for name in SCRIPTS:
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        (out / name).write_text(text, encoding="utf-8")
    for name, content in (
        ("axolotl", _axolotl(base, epochs, seed)),
        ("llamafactory", _llamafactory(base, epochs, seed)),
    ):
        (out / f"{name}.yaml").write_text(
            yaml.safe_dump(content, sort_keys=False), encoding="utf-8"
        )
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    rows = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    sets = {
        f"handoff_{side}": {"file_name": f"../chat/{side}.jsonl"} | rows
        for side in ("train", "val")
    }
    (out / "dataset_info.json").write_text(json.dumps(sets, indent=1) + "\n", encoding="utf-8")


def write_readme(folder: Path, base: str | None, pairs: bool, told: Mapping[str, str]) -> None:
    """The hand-off's README.md, from handoff.md with what is told put in."""
    flag = "" if base else " --base MODEL"
    lines = {
        "base": f"`{base}`"
        if base
        else f"yours to choose: put it into the two configurations in place of `{UNKNOWN}`",
        "flag": flag,
        "preferences": "\n- `preferences/`: `prompt`, `chosen` (the label), `rejected` (what the "
        "prompt program said), for DPO." * pairs,
        "dpo": f"python recipes/trl_lora.py{flag} --method dpo --adapter out/sft" if pairs else "",
    }
    text = Template((Path(__file__).parent / "handoff.md").read_text(encoding="utf-8")).substitute(
        told, **lines
    )
    (folder / "README.md").write_text(text.replace("\n\naxolotl", "\naxolotl"), encoding="utf-8")


def _axolotl(base: str | None, epochs: int, seed: int) -> dict[str, Any]:
    def rows(side: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "path": f"chat/{side}.jsonl",
            "ds_type": "json",
            "type": "chat_template",
            "field_messages": "messages",
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }
        return found | ({"split": "train"} if side == "val" else {})

    return {
        "base_model": base or UNKNOWN,
        "datasets": [rows("train")],
        "test_datasets": [rows("val")],
        "adapter": "lora",
        "lora_r": RANK,
        "lora_alpha": ALPHA,
        "lora_target_linear": True,
        "sequence_len": LONGEST,
        "micro_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "num_epochs": epochs,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_torch",
        "evals_per_epoch": 1,
        "saves_per_epoch": 1,
        "seed": seed,
        "output_dir": "out/axolotl",
    }


def _llamafactory(base: str | None, epochs: int, seed: int) -> dict[str, Any]:
    template = next((t for kind, t in TEMPLATES.items() if kind in (base or "")), None)
    return {
        "model_name_or_path": base or UNKNOWN,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_target": "all",
        "dataset_dir": "recipes",
        "dataset": "handoff_train",
        "eval_dataset": "handoff_val",
        # without one LLaMA-Factory takes the tokenizer's own
        **({"template": template} if template else {}),
        "cutoff_len": LONGEST,
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": epochs,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "cosine",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "seed": seed,
        "output_dir": "out/llamafactory",
    }

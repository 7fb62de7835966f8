"""Supervised fine-tuning of a LoRA on this hand-off, with TRL: python recipes/trl_sft.py --base
MODEL

Needs trl, peft and datasets. The loss is on the answers only; the epoch with the lowest loss on the
val rows is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HANDOFF = Path(__file__).resolve().parents[1]


def split(row: dict[str, Any]) -> dict[str, Any]:
    """The conversation as a prompt and its completion."""
    return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}


def main() -> None:
    manifest = json.loads((HANDOFF / "manifest.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--base",
        default=manifest["base"],
        required=not manifest["base"],
        help="hub name or folder of the base model",
    )
    parser.add_argument("--out", default="out/trl_sft")
    parser.add_argument("--epochs", type=float, default=manifest["epochs"])
    parser.add_argument("--max-steps", type=int, default=-1)
    args = parser.parse_args()

    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    files = {side: str(HANDOFF / "chat" / f"{side}.jsonl") for side in ("train", "val")}
    rows = load_dataset("json", data_files=files).map(split, remove_columns=["messages"])
    config = SFTConfig(
        output_dir=args.out,
        num_train_epochs=args.epochs,
        max_steps=args.max_steps,
        learning_rate=2e-4,
        per_device_train_batch_size=8,
        max_length=2048,
        bf16=torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        seed=manifest["seed"],
        report_to="none",
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        args.base,
        args=config,
        train_dataset=rows["train"],
        eval_dataset=rows["val"],
        peft_config=lora,
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()

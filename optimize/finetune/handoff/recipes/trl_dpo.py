"""Preference tuning of a LoRA on this hand-off's pairs, with TRL: python recipes/trl_dpo.py --base
MODEL

Needs trl, peft and datasets. Chosen is the labelled answer, rejected what the best prompt program
said instead. Usually run on a model that was fine-tuned on the rows first (--base out/trl_sft).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HANDOFF = Path(__file__).resolve().parents[1]


def main() -> None:
    manifest = json.loads((HANDOFF / "manifest.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--base",
        default=manifest["base"],
        required=not manifest["base"],
        help="hub name or folder of the base model",
    )
    parser.add_argument("--out", default="out/trl_dpo")
    parser.add_argument("--max-steps", type=int, default=-1)
    args = parser.parse_args()

    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    rows = load_dataset(
        "json", data_files=str(HANDOFF / "preferences" / "train.jsonl"), split="train"
    )
    config = DPOConfig(
        output_dir=args.out,
        num_train_epochs=1,
        max_steps=args.max_steps,
        learning_rate=5e-6,
        per_device_train_batch_size=4,
        max_length=2048,
        bf16=torch.cuda.is_available(),
        seed=manifest["seed"],
        report_to="none",
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = DPOTrainer(args.base, args=config, train_dataset=rows, peft_config=lora)
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()

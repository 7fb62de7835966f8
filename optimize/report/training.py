"""What a training would run, as a person reads it."""

from __future__ import annotations

import json

from optimize.finetune.trl.train import Plan


def planned(plan: Plan, method: str) -> str:
    """The commands with what was checked of them."""
    found, folder = plan.found, plan.folder
    commands = "\n".join(f"  {command}" for command in plan.commands)
    config = json.dumps(plan.accelerate, indent=1).replace("\n", "\n  ")
    each = " on each GPU" if plan.where.gpus else ""
    left = f" ({found['left_out']} train rows are too long for it and left out)"
    rows = f"{found['rows']} train and {found['val']} val rows"
    more = (
        f"The pairs of --method {method}, general instructions to replay and steps without labels "
        "are answers, which are asked for when it runs."
    )
    return "\n".join(
        [
            f"TRL would train on {plan.where}. Nothing was trained. In {folder}:",
            "",
            commands,
            "",
            f"  accelerate.json: {config}",
            "",
            f"It takes about {plan.memory / 1e9:.1f} GB of memory{each}; how long is told after "
            "its first steps.",
            "Checked: accelerate's own loader reads its configuration and the command line; TRL's "
            f"{found['config']} is constructed (learning rate {found['learning_rate']:g}, "
            f"{found['batch']} rows a step on each device) and PEFT's LoraConfig; the base's own "
            f"tokenizer reads {rows}{left if found['left_out'] else ''}.",
            more if method != "sft" else "",
        ]
    ).strip()

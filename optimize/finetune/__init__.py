"""The fallback: gate → rows → hand-off or training → after-checks. Reached only when prompting has
plateaued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from optimize.config import RunConfig, command_line, is_local
from optimize.errors import WorkbenchError

# Imported on use. Each has check_config(config), recipe(job): what it sets by itself,
# train(job, log) → what the tuned LM is known by, and curve(that, out).
BACKENDS = {
    "lora": "optimize.finetune.lora.train",
    "trl": "optimize.finetune.trl.train",
    "openai": "optimize.finetune.openai_job",
}
PREFERRING = ("dpo", "kto")  # methods that learn from pairs of answers as well


def training_id(made_of: Sequence[Any]) -> str:
    """The name of what a training makes: the same for the same rows, base and knobs."""
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def trainer(backend: str) -> Any:
    """The module that trains."""
    return import_module(BACKENDS[backend])


def backend_for(lm: str) -> str:
    """Who could train the LM of that name."""
    return "lora" if is_local(lm) else "openai"


def finetune_command(task: str, knobs: Mapping[str, Any]) -> str:
    """The command that fine-tunes the LM of a run with these knobs."""
    asked = knobs.get("finetune")
    backend = asked if asked in BACKENDS else backend_for(knobs.get("lm", "embedded"))
    return command_line("finetune", task, {**knobs, "finetune": backend})


def untrainable(config: RunConfig) -> str:
    """Why the LM cannot be fine-tuned from here; empty where it can. Asks no LM."""
    try:
        asked = config.finetune
        trainer(asked if asked in BACKENDS else backend_for(config.lm)).check_config(config)
    except WorkbenchError as error:
        return str(error)
    return ""

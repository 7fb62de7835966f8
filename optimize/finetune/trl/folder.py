"""What a training reads: a folder laid out as a hand-off is, for the recipe that comes with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimize.config import RunConfig
from optimize.files import write_jsonl
from optimize.finetune.handoff import recipes
from optimize.finetune.trl.base import Where
from optimize.finetune.trl.launch import CONFIG, accelerate_config


def written(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
    base: str,
    config: RunConfig,
    where: Where,
) -> None:
    """Rows, manifest, recipe and accelerate's configuration. Of a preference the chosen answer is a
    chat row as well.
    """
    pairs = [row for row in rows if "chosen" in row]
    chats = [
        row if "messages" in row else {"messages": [*row["prompt"], *row["chosen"]]} for row in rows
    ]
    sides = {"chat/train": chats, "chat/val": val} | ({"preferences/train": pairs} if pairs else {})
    for name, lines in sides.items():
        write_jsonl(folder / f"{name}.jsonl", lines)
    accelerate = accelerate_config(where.gpus, where.precision != "float32")
    manifest = {"base": base, "epochs": config.epochs, "seed": config.seed}
    for name, content in (("manifest.json", manifest), (CONFIG, accelerate)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "recipes").mkdir(exist_ok=True)
    for name in recipes.SCRIPTS:
        shutil.copyfile(Path(recipes.__file__).with_name(name), folder / "recipes" / name)

"""The fallback: gate → rows → hand-off or training → after-checks. Reached only when prompting has
plateaued.
"""

from optimize.config import is_local

# Imported on use. Each has check_config(config), train(rows, val, base, out, config, progress) →
# what the tuned LM is known by, curve(that).
BACKENDS = {"lora": "optimize.finetune.lora.train", "openai": "optimize.finetune.openai_job"}


def command(task: str, lm: str) -> str:
    """The command that fine-tunes this LM on the task."""
    return f"optimize finetune {task} --backend {'lora' if is_local(lm) else 'openai'}" + (
        f" --lm {lm}" if lm != "embedded" else ""
    )

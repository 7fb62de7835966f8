"""Whether a training fits into the memory that is free."""

from __future__ import annotations

from optimize.errors import WorkbenchError
from optimize.finetune.lora.needs import Needs
from optimize.threads import free_memory


def free_room() -> int:
    """Bytes, of the GPU where there is one."""
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else free_memory()


def lacking(expected: Needs, free: int) -> str:
    """Why there is too little; empty where there is enough."""
    if expected.memory <= free:
        return ""
    return (
        f"LoRA training would take about {expected.memory / 1e9:.1f} GB of memory, "
        f"{free / 1e9:.1f} GB are free. Tune a smaller LM, shorten the longest rows, or use "
        "--finetune bundle to train elsewhere."
    )


def check_room(expected: Needs) -> None:
    """Raises WorkbenchError where the training would take more memory than there is."""
    if told := lacking(expected, free_room()):
        raise WorkbenchError(told)

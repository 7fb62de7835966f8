"""Whether a training fits into the memory that is free."""

from __future__ import annotations

from optimize.errors import WorkbenchError
from optimize.finetune.lora.needs import Needs
from optimize.threads import free_memory


def free_room(gpu: bool = True) -> int:
    """Bytes, of the GPU where there is one and it is used."""
    import torch

    on_gpu = gpu and torch.cuda.is_available()
    return int(torch.cuda.mem_get_info()[0]) if on_gpu else free_memory()


def lacking(expected: Needs, free: int) -> str:
    """Why there is too little; empty where there is enough."""
    if expected.memory <= free:
        return ""
    return (
        f"LoRA training would take about {expected.memory / 1e9:.1f} GB of memory, "
        f"{free / 1e9:.1f} GB are free. Tune a smaller LM, shorten the longest rows, or use "
        "--finetune bundle to train elsewhere."
    )


def check_room(expected: Needs, gpu: bool = True) -> None:
    """Raises WorkbenchError where the training would take more memory than there is."""
    if told := lacking(expected, free_room(gpu)):
        raise WorkbenchError(told)

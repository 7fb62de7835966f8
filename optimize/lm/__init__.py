"""Reach, count, cap and cache an LM. What makes one from a name (`named`) is loaded on first use:
an exported program has this package without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimize.lm.named import (
        PROPOSAL_TOKENS,
        adapted_lm,
        answer_tokens,
        ask,
        asked_with,
        check_name,
        configure,
        gguf_path,
        local_lm,
        price,
        prompt_tokens,
        proposal_tokens,
        proposing,
        resolve,
        retires,
        task_lm,
        teacher_lm,
        telling,
        thinks,
    )

__all__ = [
    "PROPOSAL_TOKENS", "adapted_lm", "answer_tokens", "ask", "asked_with", "check_name",
    "configure", "gguf_path", "local_lm",
    "price", "prompt_tokens", "proposal_tokens", "proposing", "resolve", "retires", "task_lm",
    "teacher_lm", "telling", "thinks",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("optimize.lm.named"), name)

"""A LoRA's weights as a GGUF file that llama.cpp serves beside the base weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError

NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
ARCHITECTURE = "llama"


def write_adapter(
    path: Path, weights: dict[tuple[int, str], tuple[Any, Any]], alpha: float, heads: dict[str, int]
) -> None:
    """Write {(block, module): (A of rank × inputs, B of outputs × rank)}, float32 numpy arrays.

    heads: how many heads q_proj and k_proj have. llama.cpp stores the rows of these two in another
    order than transformers (rotary halves interleaved), so the rows of their B are permuted alike.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for (block, module), (a, b) in sorted(weights.items()):
        if module in heads:
            outputs, rank = b.shape
            b = (
                b.reshape(heads[module], 2, outputs // heads[module] // 2, rank)
                .swapaxes(1, 2)
                .reshape(outputs, rank)
            )
        name = f"blk.{block}.{NAMES[module]}.weight"
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a, dtype=np.float32))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_architecture(model_type: str) -> None:
    """Raises WorkbenchError before any training for weights whose adapter could not be served."""
    if model_type != ARCHITECTURE:
        raise WorkbenchError(
            f"LoRA training knows the {ARCHITECTURE} architecture (Llama, SmolLM, Mistral, "
            f"TinyLlama); this model is {model_type!r}. Use `--finetune bundle` and a trainer of "
            "your choice."
        )

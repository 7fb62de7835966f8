"""Tiny LMs of several architectures with random weights, as a transformers model and as the GGUF
file that llama.cpp's converter would make of it, with a tokenizer of bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SEED = 0
WIDTH, HEADS, KEYS = 64, 4, 2
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<s>", "</s>")
LETTERS = [*map(chr, range(33, 127)), "Ġ", "Ċ"]  # as BPE spells a space and a line break
PAIRS = [one + other for one in "aeiou" for other in "bcdfghjklmnpqrstvwxyz"]
WORDS = len(SPECIAL) + len(LETTERS) + len(PAIRS)
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + "
    "'<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SHAPE = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
GAIN = 1.5  # of the weights: sharper than new ones, so that attention matters
WINDOW = 16  # tokens that gemma's local blocks see; prompts are longer
GEMMA = {"head_dim": 256, "sliding_window": WINDOW}
# GGUF name of the architecture: (its model type in transformers, what its config has of its own)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 128}),
    "phi3": ("phi3", {}),
    "gemma2": ("gemma2", GEMMA),
    "gemma3": ("gemma3_text", {**GEMMA, "num_hidden_layers": 6}),
}
IN_GGUF = {"mistral": "llama"}  # llama.cpp runs it as that


def tiny_model(name: str) -> Any:
    """The transformers model, every weight of it random, norms and biases too."""
    import torch
    import transformers

    kind, own = ARCHITECTURES[name]
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(kind, **SHAPE | own)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(
                0, GAIN * parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
            )
    return model


def _add_tokenizer(writer: Any) -> None:
    """Of ASCII alone: the engine tells no probability of a token that is half a character."""
    import gguf

    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*SPECIAL, *LETTERS, *PAIRS])
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (WORDS - len(kinds)))
    writer.add_token_merges([" ".join(pair) for pair in PAIRS])
    writer.add_bos_token_id(SPECIAL.index("<|im_start|>"))
    writer.add_eos_token_id(SPECIAL.index("<|im_end|>"))
    writer.add_pad_token_id(SPECIAL.index("<|im_end|>"))
    writer.add_chat_template(TEMPLATE)


def write_gguf(name: str, model: Any, path: Path, scaling: str = "", factors: Any = None) -> Path:
    """As llama.cpp's convert_hf_to_gguf.py does, in float32.

    scaling: of its positions. factors: by which Llama 3 divides how fast they rotate.
    """
    import gguf

    architecture = IN_GGUF.get(name, name)
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    writer.add_name(f"tiny {name}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
        writer.add_rope_scaling_factor(4.0)
    if name.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if name == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    _add_tokenizer(writer)
    names = gguf.get_tensor_name_map(
        {word: kind for kind, word in gguf.MODEL_ARCH_NAMES.items()}[architecture],
        config.num_hidden_layers,
    )
    tied = config.tie_word_embeddings
    for key, tensor in model.state_dict().items():
        if tied and key == "lm_head.weight":
            continue
        known = names.get_name(key, try_suffixes=(".weight", ".bias"))
        value = tensor.numpy()
        if architecture == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
            value = interleaved(value, value.shape[0] // width)
        if name.startswith("gemma") and "norm" in key:
            value = value + 1
        writer.add_tensor(known, value)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleaved(value: Any, heads: int) -> Any:
    """Rows of q and k as llama.cpp stores them: the converter's `permute`."""
    outputs, inputs = value.shape
    halves = value.reshape(heads, 2, outputs // heads // 2, inputs)
    return halves.swapaxes(1, 2).reshape(outputs, inputs)

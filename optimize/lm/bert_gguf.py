"""A BERT sentence encoder, as sentence-transformers stores it, written as the GGUF file that the
engine reads. Knows files only.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

UNUSED = ("position_ids", "pooler.")  # made anew by the engine; not part of the mean
# special tokens of the tokenizer, as GGUF names them
SPECIAL = {
    "[UNK]": "unk",
    "[SEP]": "seperator",
    "[PAD]": "padding",
    "[CLS]": "cls",
    "[MASK]": "mask",
}


def to_gguf(source: Path, target: Path) -> None:
    """Write the encoder in a zip file (config.json, tokenizer.json, model.safetensors) as GGUF: its
    matrices as F16, the mean of its tokens' states as a text's vector.
    """
    import gguf
    import numpy as np
    from safetensors.numpy import load

    with zipfile.ZipFile(source) as files:
        config = json.loads(files.read("config.json"))
        tokens = json.loads(files.read("tokenizer.json"))
        tensors = load(files.read("model.safetensors"))
    writer = gguf.GGUFWriter(target, "bert")
    _described(writer, config)
    _worded(writer, tokens)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in tensors.items():
        if any(part in name for part in UNUSED):
            continue
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        whole = tensor.ndim == 1 or ("embeddings" in name and "word" not in name)
        writer.add_tensor(known, tensor.astype(np.float32 if whole else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _described(writer: Any, config: dict[str, Any]) -> None:
    import gguf

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _worded(writer: Any, tokenizer: dict[str, Any]) -> None:
    """The vocabulary. GGUF marks a word's beginning where BERT marks its continuation."""
    import gguf

    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")  # llama.cpp's name for lower-cased word pieces
    writer.add_token_list([_word(w, w in special) for w in words])
    writer.add_token_types([control if w in special else normal for w in words])
    writer.add_token_type_count(2)
    for token, name in SPECIAL.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", vocabulary[token])


def _word(piece: str, special: bool) -> str:
    if special:
        return piece
    return piece[2:] if piece.startswith("##") else f"\u2581{piece}"

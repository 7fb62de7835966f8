"""A LoRA for each architecture: transformers and the engine give the same answers to the same
tokens, the LM alone and with an adapter that we wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimize.lm import embedded
from tests import tiny_lm

pytest.importorskip("peft", reason="the lora extra is not installed")

from optimize.finetune.lora import model as lora_model
from optimize.finetune.lora.adapter_gguf import Served, write_adapter

PROMPTS = [[5 + (step * n) % 190 for n in range(24)] for step in (37, 11, 101)]
WRITTEN = 6
NEAR = 0.03  # nats; the engine keeps what it has read in half precision
Said = list[tuple[int, float]]  # tokens and their log-probabilities


def engine_says(base: Path, adapter: Path | None = None) -> Said:
    endpoint, said = embedded.serve(base, adapter), []
    for prompt in PROMPTS:
        body = {"prompt": prompt, "n_predict": WRITTEN, "temperature": 0, "n_probs": 1}
        tokens = endpoint.post("/completion", body | {"ignore_eos": True})
        said += [(one["id"], one["logprob"]) for one in tokens["completion_probabilities"]]
    return said


def transformers_says(model: Any) -> Said:
    """Greedy, with no end that a generation config would bring in."""
    import torch

    said = []
    for prompt in PROMPTS:
        ids = list(prompt)
        for _ in range(WRITTEN):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
            ids.append(int(logits.argmax()))
            said.append((ids[-1], float(logits.log_softmax(-1)[ids[-1]])))
    return said


def same(one: Said, other: Said) -> bool:
    return [token for token, _ in one] == [token for token, _ in other] and all(
        abs(p - q) < NEAR for (_, p), (_, q) in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", tiny_lm.ARCHITECTURES)
def test_the_engine_answers_as_transformers_do(name: str, tmp_path: Path) -> None:
    import torch

    base = tiny_lm.write_gguf(name, tiny_lm.tiny_model(name), tmp_path / "base.gguf")
    served, config = Served(base), lora_model.load_config(str(base))
    model = lora_model.load_model(str(base), config, served)
    plain = transformers_says(model)
    assert same(engine_says(base), plain)
    modules = {n: m.weight.detach().numpy() for n, m in lora_model.linear(model, 2).items()}
    width = getattr(config, "head_dim", None) or tiny_lm.WIDTH // tiny_lm.HEADS
    places = served.places(modules, config.num_hidden_layers, width)
    assert len(places) == (4 if name == "phi3" else 7) * (config.num_hidden_layers - 2)
    adapted = lora_model.adapt(model, places)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    adapter, pairs = tmp_path / "lora.gguf", lora_model.weights(adapted)
    written = [(places[n], pair) for n, pair in pairs.items()]
    write_adapter(adapter, served.architecture, written, float(lora_model.ALPHA))
    tuned = transformers_says(adapted)
    assert same(engine_says(base, adapter), tuned) and not same(tuned, plain)


def test_the_positions_of_llama_3_are_read_from_its_tensor(tmp_path: Path) -> None:
    """transformers leaves `rope_freqs.weight` out: without it the answers differ."""
    import numpy as np

    model = tiny_lm.tiny_model("llama")
    factors = np.linspace(1, 8, tiny_lm.WIDTH // tiny_lm.HEADS // 2, dtype=np.float32)
    base = tiny_lm.write_gguf("llama", model, tmp_path / "base.gguf", factors=factors)
    loaded = lora_model.load_model(str(base), lora_model.load_config(str(base)), Served(base))
    said = engine_says(base)
    assert same(said, transformers_says(loaded)) and not same(said, transformers_says(model))

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
from optimize.finetune.lora.recipe import ALPHA

PROMPTS = [[5 + (step * n) % 190 for n in range(24)] for step in (37, 11, 101)]
WRITTEN = 6
NEAR = 0.03  # nats; the engine keeps what it has read in half precision
Said = list[tuple[int, float]]  # tokens and their log-probabilities


def engine_says(base: Path, adapter: Path | None = None) -> list[Said]:
    """Its greedy answers."""
    endpoint, said = embedded.serve(base, adapter), []
    for prompt in PROMPTS:
        body = {"prompt": prompt, "n_predict": WRITTEN, "temperature": 0, "n_probs": 1}
        told = endpoint.post("/completion", body | {"ignore_eos": True})
        said.append([(one["id"], one["logprob"]) for one in told["completion_probabilities"]])
    return said


def apart(model: Any, said: list[Said]) -> float:
    """By how much at most, in nats, the model's probability of a token differs from what was said,
    and from that of the token which the model itself would write; above NEAR one is another token.
    """
    import torch

    found = []
    for prompt, answer in zip(PROMPTS, said, strict=True):
        ids = torch.tensor([prompt + [token for token, _ in answer]])
        with torch.inference_mode():
            logits = model(input_ids=ids, logits_to_keep=WRITTEN + 1).logits[0].log_softmax(-1)
        for ours, (token, told) in zip(logits[:-1], answer, strict=True):
            found += [abs(float(ours[token]) - told), float(ours.max() - ours[token])]
    return max(found)


@pytest.mark.parametrize("name", tiny_lm.ARCHITECTURES)
def test_the_engine_answers_as_transformers_do(name: str, tmp_path: Path) -> None:
    import torch

    base = tiny_lm.write_gguf(name, tiny_lm.tiny_model(name), tmp_path / "base.gguf")
    served, config = Served(base), lora_model.load_config(str(base))
    assert lora_model.width_of(str(base)) == config.get_text_config().hidden_size
    model = lora_model.load_model(str(base), config, served)
    plain = engine_says(base)
    assert apart(model, plain) < NEAR
    modules = {n: m.weight.detach().numpy() for n, m in lora_model.linear(model, 2).items()}
    width = getattr(config, "head_dim", None) or tiny_lm.WIDTH // tiny_lm.HEADS
    places = served.places(modules, config.num_hidden_layers, width)
    assert len(places) == (4 if name == "phi3" else 7) * (config.num_hidden_layers - 2)
    adapted = lora_model.adapt(model, places, 16)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    adapter, pairs = tmp_path / "lora.gguf", lora_model.weights(adapted)
    written = [(places[n], pair) for n, pair in pairs.items()]
    write_adapter(adapter, served.architecture, written, float(ALPHA))
    assert apart(adapted, engine_says(base, adapter)) < NEAR < apart(adapted, plain) / 5


def test_the_positions_of_llama_3_are_read_from_its_tensor(tmp_path: Path) -> None:
    """transformers leaves `rope_freqs.weight` out: without it the answers differ."""
    import numpy as np

    model = tiny_lm.tiny_model("llama")
    factors = np.linspace(1, 8, tiny_lm.WIDTH // tiny_lm.HEADS // 2, dtype=np.float32)
    base = tiny_lm.write_gguf("llama", model, tmp_path / "base.gguf", factors=factors)
    loaded = lora_model.load_model(str(base), lora_model.load_config(str(base)), Served(base))
    said = engine_says(base)
    assert 4 * apart(loaded, said) < apart(model, said)

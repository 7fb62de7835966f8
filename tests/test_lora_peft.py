"""An adapter of PEFT's in the served file and back: the engine, transformers and what is written
again agree; what cannot be served is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optimize.errors import WorkbenchError
from tests import tiny_lm

pytest.importorskip("peft", reason="the lora extra is not installed")

from optimize.finetune.lora.adapter_peft import CONFIG, WEIGHTS, to_gguf, to_peft
from tests.test_adopt import peft_adapter
from tests.test_lora_architectures import NEAR, PROMPTS, apart, engine_says

UPPER: dict[str, Any] = {"layers_to_transform": [1, 3], "target_modules": ["q_proj", "up_proj"]}
PATTERNS: dict[str, Any] = {"alpha_pattern": {"q_proj": 6}, "rank_pattern": {"down_proj": 2}}


@pytest.mark.parametrize(
    ("name", "options", "half"),
    [
        ("llama", {}, False),
        ("llama", {"use_rslora": True}, True),
        ("qwen2", PATTERNS, False),
        ("llama", UPPER, False),
    ],
    ids=["llama", "rank-stabilized, bfloat16", "qwen2, patterns", "some blocks"],
)
def test_the_engine_answers_as_peft_does(
    name: str, options: dict[str, Any], half: bool, tmp_path: Path
) -> None:
    model = tiny_lm.tiny_model(name)
    base = tiny_lm.write_gguf(name, model, tmp_path / "base.gguf")
    plain = engine_says(base)
    adapted = peft_adapter(model, tmp_path / "peft", **options)
    if half:
        import torch
        from safetensors.torch import load_file, save_file

        saved = load_file(tmp_path / "peft" / WEIGHTS)
        save_file({n: w.to(torch.bfloat16) for n, w in saved.items()}, tmp_path / "peft" / WEIGHTS)
    to_gguf(tmp_path / "peft", base, tmp_path / "lora.gguf")
    tuned = engine_says(base, tmp_path / "lora.gguf")
    assert apart(adapted, tuned) < NEAR < apart(adapted, plain) / 5


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_there_and_back_is_the_same_adapter(name: str, tmp_path: Path) -> None:
    import peft
    import torch
    from safetensors.numpy import load_file

    model = tiny_lm.tiny_model(name)
    base = tiny_lm.write_gguf(name, model, tmp_path / "base.gguf")
    peft_adapter(model, tmp_path / "peft", **UPPER)
    to_gguf(tmp_path / "peft", base, tmp_path / "lora.gguf")
    to_peft(tmp_path / "lora.gguf", base, "tiny", tmp_path / "again")
    before, after = (load_file(tmp_path / f / WEIGHTS) for f in ("peft", "again"))
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before), "to the bit"
    said = []
    for folder in ("peft", "again"):
        loaded = peft.PeftModel.from_pretrained(tiny_lm.tiny_model(name), tmp_path / folder)
        with torch.inference_mode():
            said.append(loaded(input_ids=torch.tensor([PROMPTS[0]])).logits)
    assert torch.equal(*said)


def spoiled(folder: Path, **config: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_what_cannot_be_served_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model = tiny_lm.tiny_model("llama")
    base = tiny_lm.write_gguf("llama", model, tmp_path / "base.gguf")
    other = tiny_lm.write_gguf("mistral", tiny_lm.tiny_model("mistral"), tmp_path / "other.gguf")
    folder, out = tmp_path / "peft", tmp_path / "out" / "lora.gguf"
    peft_adapter(model, folder)
    with pytest.raises(WorkbenchError, match=r"does not fit other.gguf: its model.layers.0.*× 64"):
        to_gguf(folder, other, out)
    for config, told in (
        ({"use_dora": True}, "no plain LoRA: use_dora"),
        ({"init_lora_weights": "pissa"}, r"init_lora_weights \(pissa\)"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, r"peft_type \(IA3\)"),
        ({"bias": "all"}, "bias"),
    ):
        kept = (folder / CONFIG).read_text()
        spoiled(folder, **config)
        with pytest.raises(WorkbenchError, match=told):
            to_gguf(folder, base, out)
        (folder / CONFIG).write_text(kept)
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WorkbenchError, match="cannot be read"):
        to_gguf(folder, base, out)
    (folder / CONFIG).write_text("{")
    with pytest.raises(WorkbenchError, match="not JSON"):
        to_gguf(folder, base, out)
    assert not out.exists() and not list(tmp_path.glob("out/*"))

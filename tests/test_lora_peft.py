"""An adapter of PEFT's in the served file and back: the engine, transformers and what is written
again agree; what cannot be served is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimize import lm as lms
from optimize.commands.export import FORMS, Champion
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.handoff.manifest import Manifest
from optimize.finetune.handoff.returned import kept_weights
from optimize.lm.meter import Meter
from optimize.program.program import student
from optimize.report.record import Report
from optimize.task import Task
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


def test_a_merged_file_is_served_by_itself_and_another_architecture_is_refused(
    tmp_path: Path,
) -> None:
    base = tiny_lm.write_gguf("llama", tiny_lm.tiny_model("llama"), tmp_path / "base.gguf")
    merged = tiny_lm.write_gguf("llama", tiny_lm.tiny_model("llama"), tmp_path / "merged.gguf")
    other = tiny_lm.write_gguf("qwen2", tiny_lm.tiny_model("qwen2"), tmp_path / "other.gguf")
    facts = Manifest.model_construct(lm=f"gguf:{base}", base=None, task="tiny")
    kept = kept_weights(merged, base, facts, tmp_path / "kept")
    assert kept.read_bytes() == merged.read_bytes()
    lm = lms.adapted_lm(RunConfig(lm=f"gguf:{base}"), Meter(1), str(kept), 8)
    assert lm.model.endswith(kept.stem), "not the base with an adapter"
    with pytest.raises(WorkbenchError, match=r"architecture 'qwen2', .* of 'llama'"):
        kept_weights(other, base, facts, tmp_path / "kept")


@pytest.mark.parametrize(
    ("named", "told"),
    [("org/another", "was trained on org/another, the hand-off names org/this"), ("", "")],
)
def test_an_adapter_of_another_base_is_refused(named: str, told: str, tmp_path: Path) -> None:
    model = tiny_lm.tiny_model("llama")
    base = tiny_lm.write_gguf("llama", model, tmp_path / "base.gguf")
    peft_adapter(model, tmp_path / "peft")
    spoiled(tmp_path / "peft", base_model_name_or_path=named)
    facts = Manifest.model_construct(lm="embedded", base="org/this", task="tiny")
    if told:
        with pytest.raises(WorkbenchError, match=told):
            kept_weights(tmp_path / "peft", base, facts, tmp_path / "kept")
        assert not (tmp_path / "kept").exists()
        return
    kept = kept_weights(tmp_path / "peft", base, facts, tmp_path / "kept")
    written = kept.stat().st_mtime_ns
    again = kept_weights(tmp_path / "peft", base, facts, tmp_path / "kept")
    assert again == kept and kept.stat().st_mtime_ns == written, "converted once"


def test_the_champions_adapter_is_exported_for_others(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    model = tiny_lm.tiny_model("llama")
    base = tiny_lm.write_gguf("llama", model, tmp_path / "base.gguf")
    peft_adapter(model, tmp_path / "peft")
    to_gguf(tmp_path / "peft", base, tmp_path / "lora.gguf")
    program = student(tiny(rows=mood_rows))
    report = Report.model_construct(lm=f"gguf:{base}")
    found = Champion(program, report, "run", None, {})  # type: ignore[arg-type]
    with pytest.raises(WorkbenchError, match="'tiny' runs on no adapter"):
        FORMS["peft"](found, tmp_path / "out")
    program.tuned = str(tmp_path / "lora.gguf")
    FORMS["peft"](found, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {CONFIG, WEIGHTS}
    assert json.loads((tmp_path / "out" / CONFIG).read_text())["base_model_name_or_path"] == "base"

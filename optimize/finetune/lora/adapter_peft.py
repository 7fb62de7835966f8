"""A LoRA in PEFT's form (`adapter_config.json`, `adapter_model.safetensors`), from and to the GGUF
file that llama.cpp serves. Knows no training.

PEFT names modules as transformers does; where they lie in the served file, and in which order their
rows are, the base weights say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.files import read_text
from optimize.finetune.lora.adapter_gguf import Place, Served, write_adapter
from optimize.finetune.lora.model import head_width, linear, load_config, load_model, parameters
from optimize.gguf_header import read_header, read_tensors
from optimize.threads import free_memory

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PAIR = re.compile(rf"{re.escape(PREFIX)}(.+)\.lora_(A|B)\.weight")
PLAIN = {"peft_type": "LORA", "bias": "none"}
# what makes an adapter more than its two matrices a module
BEYOND = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
)
STARTS = ("gaussian", "eva", "orthogonal")  # others change the base weights as well
MERGE = "Merge it into its base there, convert that to GGUF, and adopt the merged file."
Places = dict[str, tuple[Place, tuple[int, int]]]
Pair = tuple[Any, Any]  # A of rank × inputs, B of outputs × rank, float32 numpy arrays


def to_gguf(folder: Path, base: Path, out: Path, known: Places | None = None) -> None:
    """Write the adapter of a PEFT folder as a GGUF file for the base weights at `base`. known:
    `places` of these, where they have been looked for already.

    Raises WorkbenchError for an adapter that is no plain LoRA, is cut short, or does not fit these
    weights; then nothing is written.
    """
    config, pairs = read_config(folder), _pairs(folder)
    alpha = float(config["lora_alpha"])
    known = known or places(base)
    written = []
    for module, (a, b) in pairs.items():
        place = known.get(module)
        if place is None or (b.shape[0], a.shape[1]) != place[1]:
            raise WorkbenchError(
                f"{folder} does not fit {base.name}: its {module} is {b.shape[0]} × {a.shape[1]}, "
                f"there it is {' × '.join(map(str, place[1])) if place else 'missing'}. Was it "
                "trained on another base model?"
            )
        # llama.cpp scales by alpha / rank; what PEFT scales otherwise goes into B
        b = b * (_scale(config, module, len(a)) * len(a) / alpha)
        written.append((place[0], (a, b)))
    part = out.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    write_adapter(part, Served(base).architecture, written, alpha)
    part.replace(out)


def to_peft(adapter: Path, base: Path, name: str, folder: Path) -> None:
    """Write a GGUF adapter as a PEFT folder, for vLLM and others. name: of the base model on the
    hub, or its folder, which PEFT wants to know.

    Raises WorkbenchError where the adapter does not fit the base weights at `base`.
    """
    import numpy as np
    from safetensors.numpy import save_file

    modules = {place.tensor: (module, place) for module, (place, _) in places(base).items()}
    served, alpha = Served(adapter), float(read_header(adapter).values["adapter.lora.alpha"])
    found: dict[str, Any] = {}
    ranks = set()
    for name_a in (n for n in read_tensors(adapter) if n.endswith(".lora_a")):
        tensor = name_a.removesuffix(".lora_a")
        if tensor not in modules:
            raise WorkbenchError(f"{adapter} adapts {tensor}, which {base.name} does not have.")
        module, place = modules[tensor]
        a, b = (np.array(served.values(f"{tensor}.lora_{side}")) for side in "ab")
        if place.order is not None:
            b = b[np.argsort(place.order)]
        ranks.add(len(a))
        found[f"{PREFIX}{module}.lora_A.weight"] = a
        found[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(b)
    if len(ranks) != 1:
        raise WorkbenchError(f"{adapter} has modules of ranks {sorted(ranks)}; PEFT gets one.")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(found, folder / WEIGHTS)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "r": ranks.pop(),
        "lora_alpha": alpha,
        "target_modules": sorted({module for key in found if (module := _named(key))}),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _named(key: str) -> str:
    """The whole name of a weight's module: only some blocks may be adapted."""
    found = PAIR.fullmatch(key)
    return found[1] if found else ""


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration. Raises WorkbenchError for one that is no plain LoRA."""
    path = folder / CONFIG
    try:
        config = dict(json.loads(read_text(path)))
    except (ValueError, TypeError):
        raise WorkbenchError(f"{path} is not JSON as PEFT writes it.") from None
    told = {name: config.get(name) for name in BEYOND}
    if not config.get("lora_alpha"):
        raise WorkbenchError(f"{path} has no lora_alpha, which PEFT writes.")
    told |= {name: config.get(name) for name, plain in PLAIN.items() if config.get(name) != plain}
    start = config.get("init_lora_weights")
    told["init_lora_weights"] = start if isinstance(start, str) and start not in STARTS else None
    if wrong := [f"{name} ({said})" for name, said in told.items() if said]:
        raise WorkbenchError(
            f"{path} is no plain LoRA: {', '.join(wrong)}. Only that is served beside the base "
            f"LM. {MERGE}"
        )
    return config


def places(base: Path) -> Places:
    """{module in transformers: (where it is in the GGUF file, its outputs × inputs)}."""
    served, config = Served(base), load_config(str(base))
    need, free = 4 * parameters(config), free_memory()
    if need > free:
        raise WorkbenchError(
            f"{base.name} takes {need / 1e9:.1f} GB of memory to find an adapter's places in it, "
            f"{free / 1e9:.1f} GB are free. llama.cpp's convert_lora_to_gguf.py needs less: adopt "
            "the GGUF file that it writes."
        )
    modules = linear(load_model(str(base), config, served), 0)
    weights = {name: one.weight.detach().numpy() for name, one in modules.items()}
    found = served.places(weights, config.num_hidden_layers, head_width(config))
    return {name: (place, weights[name].shape) for name, place in found.items()}


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """By which PEFT multiplies B·A of this module."""
    alpha = _of(config.get("alpha_pattern"), module) or config["lora_alpha"]
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _of(patterns: Mapping[str, float] | None, module: str) -> float | None:
    """As PEFT reads its patterns: the end of the module's name."""
    fits = (v for k, v in (patterns or {}).items() if re.match(rf"(.*\.)?({k})$", module))
    return next(fits, None)


def _pairs(folder: Path) -> dict[str, Pair]:
    """{module: its A and B}."""
    path = folder / WEIGHTS
    found: dict[str, dict[str, Any]] = {}
    for name, value in _tensors(path):
        match = PAIR.fullmatch(name)
        if not match:
            raise WorkbenchError(f"{path} holds {name}, which is no part of a plain LoRA. {MERGE}")
        found.setdefault(match[1], {})[match[2]] = value
    if not found or any(len(pair) != 2 for pair in found.values()):
        raise WorkbenchError(f"{path} is not whole: it holds no adapter, or half of one.")
    return {module: (pair["A"], pair["B"]) for module, pair in sorted(found.items())}


def _tensors(path: Path) -> Sequence[tuple[str, Any]]:
    """Name and values, in float32; bfloat16, which numpy does not know, is widened."""
    import numpy as np
    from safetensors import SafetensorError, deserialize

    kinds = {"F32": np.float32, "F16": np.float16}
    try:
        read = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise WorkbenchError(f"{path} cannot be read: {error}.") from None
    out = []
    for name, one in read:
        if one["dtype"] == "BF16":
            wide = np.frombuffer(one["data"], np.uint16).astype(np.uint32) << 16
            value = wide.view(np.float32)
        elif one["dtype"] in kinds:
            value = np.frombuffer(one["data"], kinds[one["dtype"]]).astype(np.float32)
        else:
            raise WorkbenchError(f"{path} holds {name} as {one['dtype']}; save it as float.")
        out.append((name, value.reshape(one["shape"])))
    return out

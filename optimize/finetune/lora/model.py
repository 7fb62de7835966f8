"""The model that a LoRA is trained on: loaded, and given weights to train. Knows no epochs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.finetune.lora.adapter_gguf import ELSEWHERE, Served
from optimize.finetune.lora.recipe import ALPHA
from optimize.gguf_header import read_header


def check_base(base: str) -> None:
    """Raises WorkbenchError for what transformers cannot load: neither a GGUF file, a folder nor a
    hub name, or a GGUF file of an architecture that it does not read.
    """
    from transformers import AutoConfig
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    if Path(base).is_file():
        name = read_header(Path(base)).architecture
        if name not in {*GGUF_CONFIG_MAPPING, *GGUF_CONFIG_ARCHS}:
            raise WorkbenchError(
                f"transformers does not load GGUF files of the architecture {name!r}. {ELSEWHERE}"
            )
        return
    try:
        AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        told = str(error).strip().splitlines()[0]
        raise WorkbenchError(
            f"--finetune-base {base} is neither a transformers folder nor a hub name to be read: "
            f"{told}"
        ) from error


def base_identity(base: str) -> str:
    """A hash of the weights themselves: a GGUF file's, or all of a folder's files and their names;
    of a name on the hub the commit it stands for.

    A path is none: another model may lie there tomorrow.
    """
    place = Path(base)
    if not place.exists():
        from transformers import AutoConfig

        return f"{base}@{AutoConfig.from_pretrained(base)._commit_hash}"
    found = hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            found.update(path.relative_to(place).as_posix().encode())
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def load_config(base: str) -> Any:
    """The model's shape, from a GGUF file, a transformers folder, or a name on the hub."""
    from transformers import AutoConfig
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    with _told(base):
        place, options = _place(base)
        return AutoConfig.from_pretrained(place, **options)


def width_of(base: str) -> int:
    """Numbers of a hidden state. transformers takes ten seconds to load the configuration from a
    GGUF file, whose header says it at once.
    """
    if Path(base).is_file():
        return read_header(Path(base)).width
    return int(load_config(base).get_text_config().hidden_size)


def load_model(base: str, config: Any, served: Served) -> Any:
    """The model in float32 (a GGUF file is de-quantized), with a config of `load_config`."""
    import torch
    from transformers import AutoModelForCausalLM

    place, options = _place(base)
    if options:
        served.check_positions()
    with _told(base):
        model = AutoModelForCausalLM.from_pretrained(
            place, config=config, dtype=torch.float32, **options
        )
    factors = served.values("rope_freqs.weight")
    if options and factors is not None:  # Llama 3's positions; transformers leaves the tensor out
        model.base_model.rotary_emb.inv_freq /= torch.from_numpy(factors.copy())
    model.config.use_cache = False
    return model.eval()


def parameters(config: Any) -> int:
    """How many weights a model of that shape has."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def head_width(config: Any) -> int:
    each = config.hidden_size // config.num_attention_heads
    return int(getattr(config, "head_dim", None) or each)


def _place(base: str) -> tuple[str, dict[str, str]]:
    """How transformers is told where the base is."""
    file = Path(base)
    return (str(file.parent), {"gguf_file": file.name}) if file.is_file() else (base, {})


@contextlib.contextmanager
def _told(base: str) -> Any:
    """One clear error, and none of the progress bars that no setting silences."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except (
        OSError,
        ValueError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkbenchError(f"transformers cannot load {base}: {lines[0]}") from error


def linear(model: Any, first: int) -> dict[str, Any]:
    """The linear modules of the blocks from `first` on, by name."""
    import torch

    blocks = {id(module) for block in model.base_model.layers[first:] for module in block.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if id(module) in blocks and isinstance(module, torch.nn.Linear)
    }


def adapt(model: Any, modules: Collection[str], rank: int) -> Any:
    """The model with LoRA weights to train in the modules of these names (Hu et al. 2021)."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        # peft and transformers disagree on a name they both still accept
        warnings.simplefilter("ignore")
        return get_peft_model(
            model, LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=list(modules))
        )


def restored(adapted: Any) -> Any:
    """The model as it was before `adapt`."""
    model = adapted.unload()
    with contextlib.suppress(AttributeError):  # else the next one is taken for a second adapter
        del model.peft_config
    return model


def weights(adapted: Any) -> dict[str, tuple[Any, Any]]:
    """{module: (A, B)} of the adapter as numpy arrays."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, module in adapted.get_base_model().named_modules():
        if "default" in getattr(module, "lora_A", {}):
            pair = (module.lora_A["default"].weight, module.lora_B["default"].weight)
            a, b = (w.detach().float().cpu().numpy().copy() for w in pair)
            found[name] = a, b
    return found

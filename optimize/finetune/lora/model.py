"""The model that a LoRA is trained on: loaded, its lower blocks run once, the upper ones adapted.
Knows no epochs.

Only the upper half of the blocks is adapted (Hu et al. 2021 adapt a subset too). The lower half
then never changes, so its output for every row is computed once and kept, and an epoch costs half:
docs/results.md has the figures.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from optimize.errors import WorkbenchError
from optimize.finetune.epoch import TrainingProgress
from optimize.finetune.lora.adapter_gguf import NAMES, check_architecture
from optimize.turns import my_turn

RANK, ALPHA = 16, 32
BATCH = 8
Encoded = tuple[list[int], list[int]]  # token ids of prompt and answer
Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True)
class EncodedRow:
    """One row below the adapted blocks: hidden states (tokens × width), prompt length, and the
    answer's token ids.
    """

    hidden: Any
    prompt: int
    answer: Any

    def __len__(self) -> int:
        return len(self.hidden)


def check_base(base: str) -> None:
    """Raises WorkbenchError for what is neither a transformers folder nor a hub name, or of an
    architecture that could not be served.
    """
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        told = str(error).strip().splitlines()[0]
        raise WorkbenchError(
            f"--finetune-base {base} is neither a transformers folder nor a hub name to be read: "
            f"{told}"
        ) from error
    check_architecture(found.model_type)


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


def load_model(base: str) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file (de-quantized), a transformers folder, or a name on the
    hub.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    file = Path(base)
    place, options = (str(file.parent), {"gguf_file": file.name}) if file.is_file() else (base, {})
    try:
        # its own progress bars, which no setting silences
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise WorkbenchError(
            f"transformers cannot load {base}: {str(error).splitlines()[0]}"
        ) from error
    check_architecture(model.config.model_type)
    model.config.use_cache = False
    return model, tokenizer


def encode(tokenizer: Any, messages: Sequence[dict[str, str]]) -> Encoded:
    """(prompt ids, answer ids with the end of turn), split where the assistant's turn begins."""
    *asked, answer = messages
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    end = tokenizer.eos_token
    ids = [
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (prompt, answer["content"] + end)
    ]
    return ids[0], ids[1]


def below(
    model: Any, first: int, encoded: list[Encoded], device: str, progress: TrainingProgress
) -> list[EncodedRow]:
    """Each row's hidden states where block `first` takes over; then the lower blocks are dropped
    from the model.

    Rows are padded on the right: a causal model's earlier tokens do not see the padding.
    """
    import torch

    order = sorted(range(len(encoded)), key=lambda n: len(encoded[n][0]) + len(encoded[n][1]))
    found: dict[int, EncodedRow] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        longest = max(len(encoded[n][0]) + len(encoded[n][1]) for n in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long, device=device)
        for place, n in enumerate(batch):
            both = encoded[n][0] + encoded[n][1]
            ids[place, : len(both)] = torch.tensor(both)
        with my_turn(), torch.inference_mode(), _autocast(device):
            hidden = _upto(model, first, ids)
        for place, n in enumerate(batch):
            prompt, answer = encoded[n]
            kept = hidden[place, : len(prompt) + len(answer)].float().clone()
            found[n] = EncodedRow(kept, len(prompt), torch.tensor(answer, device=device))
        progress(len(found), len(encoded), "reading rows")
    model.model.layers = model.model.layers[first:]
    model.config.num_hidden_layers -= first
    return [found[n] for n in range(len(encoded))]


def _upto(model: Any, first: int, ids: Any) -> Any:
    """Hidden states after the first blocks, without running the others."""
    layers = model.model.layers
    states: list[Any] = []

    def stop(module: Any, args: Any, kwargs: Any) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = layers[first].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.model(input_ids=ids, use_cache=False)
    except _Reached:
        pass
    finally:
        handle.remove()
    return states[0]


class _Reached(Exception):
    """The hidden states are known; the upper blocks need not run."""


def adapt(model: Any) -> Any:
    """The model with LoRA weights to train in all the blocks it has left."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        # peft and transformers disagree on a name they both still accept
        warnings.simplefilter("ignore")
        return get_peft_model(
            model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(NAMES))
        )


def judge(model: Any, rows: list[EncodedRow]) -> tuple[float, float]:
    """(share of answers the LM gives word for word, minus the mean loss): the higher pair is the
    better model.
    """
    import torch

    right, loss = 0, 0.0
    with torch.no_grad():
        for batch in batches(rows):
            with my_turn():
                logits, gold = answers(model, batch)
            loss += torch.nn.functional.cross_entropy(logits, gold).item() * len(batch)
            hits = (logits.argmax(-1) == gold).split([len(row.answer) for row in batch])
            right += sum(bool(hit.all()) for hit in hits)
    return right / len(rows), -loss / len(rows)


def batches(rows: Sequence[Item]) -> list[list[Item]]:
    """Rows, or what else has a length in tokens, with others of like length."""
    ordered = sorted(rows, key=len)
    return [ordered[n : n + BATCH] for n in range(0, len(ordered), BATCH)]


def answers(model: Any, batch: list[EncodedRow]) -> tuple[Any, Any]:
    """(logits, token ids) of the answers, one after the other; the vocabulary is only spread out
    where it is scored.
    """
    import torch

    device = batch[0].hidden.device
    hidden = torch.nn.utils.rnn.pad_sequence([row.hidden for row in batch], batch_first=True)
    with _autocast(device.type):
        upper = model.model(inputs_embeds=hidden, use_cache=False)[0]
        before = torch.cat(
            [
                upper[n, row.prompt - 1 : row.prompt - 1 + len(row.answer)]
                for n, row in enumerate(batch)
            ]
        )
        logits = model.lm_head(before)
    return logits.float(), torch.cat([row.answer for row in batch])


def _autocast(device: str) -> Any:
    import torch

    return torch.autocast(device, torch.bfloat16, enabled=fast_bf16(device))


def fast_bf16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16; elsewhere it is slower than float32."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(
        flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16")
    )


def weights(adapted: Any) -> dict[tuple[int, str], Any]:
    """{(block, module): (A, B)} of the adapter as numpy arrays."""
    found: dict[tuple[int, str], Any] = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A") and "default" in getattr(module, "lora_A", {}):
            parts = name.split(".")
            block = int(parts[parts.index("layers") + 1])
            pair = (module.lora_A["default"].weight, module.lora_B["default"].weight)
            found[block, parts[-1]] = tuple(w.detach().float().cpu().numpy().copy() for w in pair)
    return found

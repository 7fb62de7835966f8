"""LoRA on the CPU or a GPU: labelled chat rows + base weights → an adapter file. Knows no DSPy and no statistics.

Only the upper half of the blocks is adapted (Hu et al. 2021 adapt a subset too). The lower half then never changes, so
its output for every row is computed once and kept, and an epoch costs half: docs/results.md has the figures.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import struct
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.adapter_file import NAMES, check_architecture, write_adapter

Progress = Callable[[int, int, str], None]

RANK, ALPHA = 16, 32
BATCH = 8
LEARNING_RATE = 1e-3
WARMUP = 10  # steps
PATIENCE = 2  # epochs without a better one on val
SHARE = 0.5  # of the blocks, from the top


@dataclass(frozen=True)
class Row:
    """One row below the adapted blocks: hidden states (tokens × width), prompt length, and the answer's token ids."""

    hidden: Any
    prompt: int
    answer: Any


def train(
    rows: Sequence[dict[str, Any]], val: Sequence[dict[str, Any]], base: Path, out: Path, config: RunConfig, progress: Progress
) -> Path:
    """Train on `{"messages": [system, user, assistant]}` rows and write the adapter, named by what it was made from.

    The loss is on the answer's tokens only. Batches hold rows of like length. Training stops early on val, and the epoch
    that answers most val rows word for word is kept, of equals the one with the lowest loss. The same rows, base and
    config give the same file, which is then reused. Raises WorkbenchError for weights of an architecture that could not
    be served afterwards.
    """
    recipe = [config.seed, config.epochs, RANK, ALPHA, BATCH, LEARNING_RATE, SHARE]
    identity = hashlib.sha256(json.dumps([rows, val, str(base), *recipe]).encode()).hexdigest()[:16]
    target = out / f"{identity}.gguf"
    if target.is_file():
        return target
    import torch

    random.seed(config.seed)
    torch.manual_seed(config.seed)
    model, tokenizer = _load(base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    first = int(model.config.num_hidden_layers * (1 - SHARE))
    encoded = [_encode(tokenizer, row) for row in (*rows, *val)]
    cached = _below(model, first, encoded, device, progress)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    best = _fit(_adapt(model), cached[: len(rows)], cached[len(rows) :], config.epochs, progress)
    out.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    write_adapter(part, {(block + first, name): pair for (block, name), pair in best.items()}, float(ALPHA), heads)
    part.replace(target)
    return target


def _load(base: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file (de-quantized) or a transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    place, options = (str(base), {}) if base.is_dir() else (str(base.parent), {"gguf_file": base.name})
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its own progress bars, which no setting silences
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise WorkbenchError(f"transformers cannot load {base}: {str(error).splitlines()[0]}") from error
    check_architecture(model.config.model_type)
    model.config.use_cache = False
    return model, tokenizer


def _encode(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids with the end of turn), split where the assistant's turn begins."""
    *asked, answer = row["messages"]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    end = tokenizer.eos_token
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer["content"] + end)]
    return ids[0], ids[1]


def _below(model: Any, first: int, encoded: list[tuple[list[int], list[int]]], device: str, progress: Progress) -> list[Row]:
    """Each row's hidden states where block `first` takes over; then the lower blocks are dropped from the model.

    Rows are padded on the right: a causal model's earlier tokens do not see the padding.
    """
    import torch

    order = sorted(range(len(encoded)), key=lambda n: len(encoded[n][0]) + len(encoded[n][1]))
    found: dict[int, Row] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        longest = max(len(encoded[n][0]) + len(encoded[n][1]) for n in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long, device=device)
        for place, n in enumerate(batch):
            both = encoded[n][0] + encoded[n][1]
            ids[place, : len(both)] = torch.tensor(both)
        with torch.inference_mode(), _autocast(device):
            hidden = _upto(model, first, ids)
        for place, n in enumerate(batch):
            prompt, answer = encoded[n]
            kept = hidden[place, : len(prompt) + len(answer)].float().clone()
            found[n] = Row(kept, len(prompt), torch.tensor(answer, device=device))
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


def _adapt(model: Any) -> Any:
    """The model with LoRA weights to train in all the blocks it has left."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers disagree on a name they both still accept
        return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(NAMES)))


def _fit(adapted: Any, rows: list[Row], val: list[Row], epochs: int, progress: Progress) -> dict[tuple[int, str], Any]:
    """The adapter weights of the epoch that does best on val.

    Not the one with the lowest loss: confidence in wrong answers raises it while more answers turn right (docs/results.md).
    """
    import torch

    model = adapted.get_base_model()
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE)
    steps = epochs * len(_batches(rows))
    done, best, best_judged, stale = 0, _weights(adapted), (-1.0, 0.0), 0
    for _ in range(epochs):
        batches = _batches(rows)
        random.shuffle(batches)
        for batch in batches:
            start = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (done + 1) / WARMUP) * (1 - done / steps)
            loss = torch.nn.functional.cross_entropy(*_answers(model, batch))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            speed = sum(len(row.hidden) for row in batch) / (time.perf_counter() - start)
            progress(done, steps, f"loss {loss.item():.3f}, {speed:.0f} tokens/s")
        judged = _judge(model, val)
        if judged > best_judged:
            best, best_judged, stale = _weights(adapted), judged, 0
        elif (stale := stale + 1) >= PATIENCE:
            break
    progress(steps, steps, f"val: {best_judged[0]:.0%} of the answers right, loss {-best_judged[1]:.3f}")
    return best


def _judge(model: Any, rows: list[Row]) -> tuple[float, float]:
    """(share of answers the LM gives word for word, minus the mean loss): the higher pair is the better model."""
    import torch

    right, loss = 0, 0.0
    with torch.no_grad():
        for batch in _batches(rows):
            logits, answers = _answers(model, batch)
            loss += torch.nn.functional.cross_entropy(logits, answers).item() * len(batch)
            hits = (logits.argmax(-1) == answers).split([len(row.answer) for row in batch])
            right += sum(bool(hit.all()) for hit in hits)
    return right / len(rows), -loss / len(rows)


def _batches(rows: list[Row]) -> list[list[Row]]:
    ordered = sorted(rows, key=lambda row: len(row.hidden))
    return [ordered[n : n + BATCH] for n in range(0, len(ordered), BATCH)]


def _answers(model: Any, batch: list[Row]) -> tuple[Any, Any]:
    """(logits, token ids) of the answers, one after the other; the vocabulary is only spread out where it is scored."""
    import torch

    device = batch[0].hidden.device
    hidden = torch.nn.utils.rnn.pad_sequence([row.hidden for row in batch], batch_first=True)
    with _autocast(device.type):
        upper = model.model(inputs_embeds=hidden, use_cache=False)[0]
        before = torch.cat([upper[n, row.prompt - 1 : row.prompt - 1 + len(row.answer)] for n, row in enumerate(batch)])
        logits = model.lm_head(before)
    return logits.float(), torch.cat([row.answer for row in batch])


def _autocast(device: str) -> Any:
    """bfloat16 where the hardware multiplies it; elsewhere it is slower than float32."""
    import torch

    fast = torch.cuda.is_bf16_supported() if device == "cuda" else _cpu_bf16()
    return torch.autocast(device, torch.bfloat16, enabled=fast)


def _cpu_bf16() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def _weights(adapted: Any) -> dict[tuple[int, str], Any]:
    """{(block, module): (A, B)} of the adapter as numpy arrays."""
    found: dict[tuple[int, str], Any] = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A") and "default" in getattr(module, "lora_A", {}):
            parts = name.split(".")
            block = int(parts[parts.index("layers") + 1])
            pair = (module.lora_A["default"].weight, module.lora_B["default"].weight)
            found[block, parts[-1]] = tuple(w.detach().float().cpu().numpy().copy() for w in pair)
    return found

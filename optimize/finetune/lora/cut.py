"""The model cut in two: its lower blocks run once for each row, the upper ones again and again.

Only the upper half of the blocks is adapted (Hu et al. 2021 adapt a subset too). The lower half
then never changes, so its output for every row is kept in a file, and an epoch costs half:
docs/results.md has the figures. Where the disk has no room for it, all blocks run each time.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from optimize.finetune.epoch import TrainingProgress
from optimize.turns import my_turn

BATCH = 8
PIECE = 2 << 30  # bytes that a piece of a batch may take; a constant, so that all machines agree
FLOAT = 4  # bytes
DISK = 0.5  # of what is free, at most
Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True)
class EncodedRow:
    """One row's token ids, how many of them are the prompt, and, where it is kept, what the block
    that is trained first reads (tokens × width).
    """

    ids: tuple[int, ...]
    prompt: int
    hidden: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answer(self) -> tuple[int, ...]:
        return self.ids[self.prompt :]


class CutModel:
    """A causal LM whose blocks from `first` on are trained."""

    def __init__(self, model: Any, first: int) -> None:
        self.model, self.first = model, first
        self.device = model.device
        self._known: Any = None
        layers = model.base_model.layers
        self._hook = layers[first].register_forward_pre_hook(self._here, with_kwargs=True)

    def _here(self, module: Any, args: Any, kwargs: Any) -> Any:
        """What the first trained block reads: what is known of it, or, where that is asked for,
        what the lower blocks say.
        """
        if self._known is None:
            return None
        if isinstance(self._known, list):
            self._known.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached
        kwargs.pop("hidden_states", None)
        return (self._known, *args[1:]), kwargs

    def keep(
        self, rows: Sequence[EncodedRow], scratch: Path, progress: TrainingProgress
    ) -> list[EncodedRow]:
        """The rows with their hidden states, in a file without a name in that folder, which ends
        with the process; then the lower blocks are dropped from the model. As they are where the
        disk has no room.

        Rows are padded on the right: a causal model's earlier tokens do not see the padding.
        """
        import numpy as np
        import torch

        if not self.first or not fits(self.bytes_kept(rows), scratch):
            return list(rows)
        shape = sum(map(len, rows)), self.model.config.hidden_size
        with tempfile.TemporaryFile(dir=scratch) as file:  # what is mapped stays open
            store = torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        kept: dict[int, EncodedRow] = {}
        end = 0
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            with my_turn(), torch.inference_mode(), autocast(self.device.type):
                hidden = self._below(self._padded([rows[n] for n in batch]))
            for place, n in enumerate(batch):
                begin, end = end, end + len(rows[n])
                store[begin:end] = hidden[place, : len(rows[n])].float().cpu()
                kept[n] = replace(rows[n], hidden=store[begin:end])
            progress(len(kept), len(rows), "reading rows")
        self._drop()
        return [kept[n] for n in range(len(rows))]

    def token_seconds(self, rows: Sequence[EncodedRow]) -> float:
        """What a token takes to run through all blocks, in a batch of middle length."""
        import torch

        some = batches(rows)
        batch = some[len(some) // 2]
        with my_turn(), torch.inference_mode(), autocast(self.device.type):
            start = time.perf_counter()
            self.model(input_ids=self._padded(batch), logits_to_keep=1, use_cache=False)
            return (time.perf_counter() - start) / sum(map(len, batch))

    def bytes_kept(self, rows: Sequence[EncodedRow]) -> int:
        return sum(map(len, rows)) * int(self.model.config.hidden_size) * FLOAT

    def _below(self, ids: Any) -> Any:
        """What the first trained block reads, without running it or those above."""
        found: list[Any] = []
        self._known = found
        try:
            self.model(input_ids=ids, use_cache=False)
        except _Reached:
            pass
        finally:
            self._known = None
        return found[0]

    def _drop(self) -> None:
        """Blocks whose output is kept take no memory. They keep their numbers: a model may treat
        every sixth block, say, otherwise.
        """
        import torch

        class Passed(torch.nn.Module):
            def forward(self, hidden_states: Any, *_: Any, **__: Any) -> Any:
                return hidden_states

        for number in range(self.first):
            self.model.base_model.layers[number] = Passed()

    def _padded(self, rows: Sequence[EncodedRow]) -> Any:
        import torch

        ids = [torch.tensor(row.ids) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)

    def answers(self, rows: Sequence[EncodedRow]) -> tuple[Any, Any]:
        """(logits, token ids) of the answers, one after the other; the vocabulary is only spread
        out where it is scored.
        """
        import torch

        scored = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.bool)
        for n, row in enumerate(rows):
            scored[n, row.prompt - 1 : len(row) - 1] = True
        asked = {"logits_to_keep": scored.to(self.device), "use_cache": False}
        with autocast(self.device.type):
            if rows[0].hidden is None:
                logits = self.model(input_ids=self._padded(rows), **asked).logits
            else:
                known = torch.nn.utils.rnn.pad_sequence([r.hidden for r in rows], batch_first=True)
                self._known = known.to(self.device)
                try:
                    logits = self.model(inputs_embeds=self._known, **asked).logits
                finally:
                    self._known = None
        gold = [token for row in rows for token in row.answer]
        return logits.float(), torch.tensor(gold, device=self.device)

    def judge(self, rows: Sequence[EncodedRow]) -> tuple[float, float]:
        """(share of answers the LM gives word for word, minus the mean loss): the higher pair is
        the better model.
        """
        import torch

        right, loss = 0, 0.0
        with torch.no_grad():
            for batch in batches(rows):
                with my_turn():
                    logits, gold = self.answers(batch)
                loss += torch.nn.functional.cross_entropy(logits, gold).item() * len(batch)
                hits = (logits.argmax(-1) == gold).split([len(row.answer) for row in batch])
                right += sum(bool(hit.all()) for hit in hits)
        return right / len(rows), -loss / len(rows)


class _Reached(Exception):
    """The hidden states are known; the upper blocks need not run."""


def fits(size: int, folder: Path) -> bool:
    """Whether the disk of a folder has room for so many bytes, and as many to spare."""
    return size <= DISK * shutil.disk_usage(folder).free


def batches(rows: Sequence[Item]) -> list[list[Item]]:
    """Rows, or what else has a length in tokens, with others of like length."""
    ordered = sorted(rows, key=len)
    return [ordered[n : n + BATCH] for n in range(0, len(ordered), BATCH)]


def autocast(device: str) -> Any:
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

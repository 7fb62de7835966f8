"""A hand-off that comes back from a trainer: is it the one that went out, and where are its
weights? Asks no LM.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optimize.data.rows import Splits
from optimize.errors import WorkbenchError
from optimize.files import read_jsonl
from optimize.finetune.handoff.manifest import Manifest, verify
from optimize.finetune.training_rows import chat_row, completion_rows, taught
from optimize.gguf_header import read_header
from optimize.lm.weights import sha256
from optimize.program.program import Program

PEFT, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HELD_OUT = ("val", "test")
SHOWN = 5


def check_returned(folder: Path, manifest: Manifest, program: Program, splits: Splits) -> None:
    """Raises WorkbenchError where the folder, or the task's rows, are not those that were handed
    off, or where val or test rows are among those that were trained on.

    program: the one of the folder, which writes rows as they are written there.
    """
    if wrong := verify(folder, trained=True):
        raise WorkbenchError(
            f"{folder} is not as it was handed off: {' '.join(wrong)} What was trained on other "
            "rows cannot be held against this task. Bring the folder back as it was, or hand off "
            f"and train again: optimize handoff {manifest.task}"
        )
    for side, there in sorted(manifest.rows.items()):
        if (now := len(splits.sides()[side])) != there:
            raise WorkbenchError(
                f"The hand-off knows {there} {side} rows of {manifest.task!r}, now there are "
                f"{now}. {_again(manifest.task)}"
            )
    if manifest.data_hash != splits.digest:
        raise WorkbenchError(
            f"The rows of {manifest.task!r}, or its judge, are not those of the hand-off any more. "
            f"{_again(manifest.task)}"
        )
    for path, number, side in _held_out_rows(folder, program, splits):
        raise WorkbenchError(
            f"{path}:{number} is a {side} row of {manifest.task!r}: whatever was trained on it "
            "cannot be judged by these rows any more. Train again without it."
        )


def find_weights(folder: Path) -> Path:
    """The PEFT folder, or the GGUF file, that is in it; checkpoints on the way are passed over.

    Raises WorkbenchError where there is none, or more than one.
    """
    found = [path.parent for path in folder.rglob(PEFT)] + list(folder.rglob("*.gguf"))
    last = [
        path
        for path in sorted(found)
        if not any(part.startswith("checkpoint-") for part in path.relative_to(folder).parts)
    ]
    if not last:
        raise WorkbenchError(
            f"{folder} has no trained weights: neither {PEFT} with {WEIGHTS}, as PEFT saves them, "
            "nor a GGUF file. Train first (its README.md), name them by --adapter, or give --lm "
            "openai/NAME and --api-base URL where the tuned LM is served."
        )
    if len(last) > 1:
        named = ", ".join(str(path) for path in last[:SHOWN])
        raise WorkbenchError(
            f"{folder} has trained weights in {len(last)} places: {named}. Say which by --adapter."
        )
    return last[0]


def kept_weights(source: Path, base: Path, manifest: Manifest, out: Path) -> Path:
    """The weights at `source` as a GGUF file in `out`, named by what is in them: an adapter for
    `base`, or an LM of its own.

    Raises WorkbenchError for what is none, or of another base model.
    """
    if source.is_dir():
        return _from_peft(source, base, manifest, out)
    header, wanted = read_header(source), read_header(base)
    if header.architecture != wanted.architecture:
        raise WorkbenchError(
            f"{source} is of the architecture {header.architecture!r}, {manifest.lm!r} of "
            f"{wanted.architecture!r}: it was not trained on that LM."
        )
    target = out / f"{sha256(source)[:16]}.gguf"
    if not target.is_file():
        out.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        shutil.copyfile(source, part)
        part.replace(target)
    return target


def _from_peft(source: Path, base: Path, manifest: Manifest, out: Path) -> Path:
    from optimize.finetune.lora.adapter_peft import MERGE, read_config, to_gguf

    for name in (PEFT, WEIGHTS):
        if not (source / name).is_file():
            raise WorkbenchError(f"{source} has no {name}, which PEFT saves: it is not whole.")
    named = str(read_config(source).get("base_model_name_or_path") or "")
    if named and any((place / named / PEFT).is_file() for place in source.absolute().parents):
        raise WorkbenchError(f"{source} was trained on top of another adapter, {named}. {MERGE}")
    on_hub = named.count("/") == 1 and not named.startswith(("/", ".")) and not Path(named).exists()
    if manifest.base and on_hub and named != manifest.base:
        raise WorkbenchError(
            f"{source} was trained on {named}, the hand-off names {manifest.base}. If these are "
            f"the same weights, write the latter into {PEFT} as base_model_name_or_path."
        )
    made_of = [sha256(path)[:16] for path in (source / PEFT, source / WEIGHTS, base)]
    target = out / f"{hashlib.sha256(''.join(made_of).encode()).hexdigest()[:16]}.gguf"
    if not target.is_file():
        to_gguf(source, base, target)
    return target


ANSWERS = ("completion", "chosen", "rejected", "gold", "said")  # keys of what is answered


def _again(task: str) -> str:
    return f"Climb, hand off and train again: optimize run {task}"


def _held_out_rows(
    folder: Path, program: Program, splits: Splits
) -> Iterator[tuple[Path, int, str]]:
    """Each line of the folder's JSONL files that asks what a val or test row asks, but for the
    files that are of val rows.
    """
    sides = splits.sides()
    known = {form: side for side in HELD_OUT for form in _forms(program, sides[side])}
    for path in sorted(folder.rglob("*.jsonl")):
        if path.name == "val.jsonl":
            continue
        for number, row in read_jsonl(path):
            if side := next((known[text] for text in _texts(row) if text in known), None):
                yield path, number, side


def _forms(program: Program, rows: Any) -> Iterator[str]:
    """What asks for these rows, as it is written: a conversation's last question, and the whole of
    a prompt. Steps that are given a part of the row may be asked the same for others.
    """
    task = program.task.signature
    for one in taught(program, rows, [()] * len(rows)):
        if set(task.input_fields) <= set(one.signature.input_fields):
            chat = chat_row(program, one)
            yield chat["messages"][-2]["content"]
            yield completion_rows([chat])[0]["prompt"]


def _texts(value: Any) -> Iterator[str]:
    """All that is asked in a row: its answers may well be equal to what another row asks."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, dict) and value.get("role") != "assistant":
        for name, inner in value.items():
            if name not in ANSWERS:
                yield from _texts(inner)

"""What a hand-off says of itself, and whether that still holds. Knows no LM and no task."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from optimize.errors import WorkbenchError
from optimize.files import read_jsonl, read_text
from optimize.finetune.gate import GateRecord
from optimize.lm.room import CHARS_A_TOKEN
from optimize.stats.records import Record, ScoreRecord

FILE = "manifest.json"


class FileRecord(Record):
    """A file of the hand-off.

    rows and tokens: of the JSONL ones; tokens counted as CHARS_A_TOKEN letters each.
    """

    sha256: str
    rows: int | None = None
    tokens: int | None = None


class _Climbed(Record):
    """What the climb knows."""

    lm: str = Field(description="on which the prompts were optimized")
    target: float
    seed: int
    epochs: int
    verdict: str
    reason: str
    gate: GateRecord
    before: dict[str, ScoreRecord] = Field(
        description="scores to beat: on val (corrected for selection) and on the held-out test rows"
    )


class Facts(_Climbed):
    """The same for those who write a hand-off."""

    finetune: str = Field(description="the command that trains here instead")


class Manifest(_Climbed):
    """Everything that a trainer elsewhere, or a reader in a year, needs to know of the rows beside
    it.
    """

    version: Literal[1] = 1
    workbench: str
    written: str = Field(description="the day, ISO 8601")
    task: str
    base: str | None = Field(description="of that LM on the Hugging Face hub, where that is known")
    split: str = Field(description="how rows were divided")
    rows: dict[str, int]
    data_hash: str = Field(
        description="SHA-256 over every row and its side, test rows included, though they stay "
        "behind"
    )
    removed: dict[str, int] = Field(
        description="train rows left out: written twice, or nearly a val or test row"
    )
    format: str
    prompt: str = Field(description="the whole prompt of the first val row written here")
    files: dict[str, FileRecord]


def record(path: Path) -> FileRecord:
    """The file's hash, and its rows and tokens if it is JSONL."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if path.suffix != ".jsonl":
        return FileRecord(sha256=sha256)
    lines = [line for line in data.decode().split("\n") if line]
    return FileRecord(
        sha256=sha256,
        rows=len(lines),
        tokens=sum(_letters(json.loads(line)) for line in lines) // CHARS_A_TOKEN,
    )


def read(folder: Path) -> Manifest:
    """The folder's manifest.

    Raises WorkbenchError where there is none, or one of another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise WorkbenchError(
            f"{folder} is no hand-off: it has no {FILE}. `optimize handoff TASK` writes one."
        )
    try:
        return Manifest.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise WorkbenchError(
            f"{path} is not a manifest of this version: {'.'.join(map(str, first['loc']))}: "
            f"{first['msg']}."
        ) from None


RECIPES = "recipes"
OUT = "out"  # where the recipes put what they train


def verify(folder: Path, trained: bool = False) -> list[str]:
    """What of the manifest does not hold, a sentence each; empty where all does.

    trained: the folder comes back from a trainer, who may have added files anywhere (the recipes
    add theirs in OUT alone), and have set recipes to a base and a machine.
    """
    found = read(folder)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {FILE}
    wrong = [f"{name} is missing." for name in sorted(found.files.keys() - there)]
    added = [] if trained else sorted(there - found.files.keys())
    wrong += [f"{name} is not in the manifest." for name in added if Path(name).parts[0] != OUT]
    own = {n for n in found.files if trained and Path(n).parts[0] in (RECIPES, "README.md")}
    for name in sorted((found.files.keys() & there) - own):
        if record(folder / name) != found.files[name]:
            wrong.append(f"{name} was changed after it was written.")
    if wrong:
        return wrong
    inputs = {
        side: [_asked(row) for _, row in read_jsonl(folder / "chat" / f"{side}.jsonl")]
        for side in ("train", "val")
    }
    if None in inputs["train"] or None in inputs["val"]:
        wrong.append("Some rows are not a conversation that ends with the assistant's answer.")
    if shared := len(set(inputs["train"]) & set(inputs["val"])):
        wrong.append(f"{shared} val inputs are among the train rows.")
    if len(set(inputs["train"])) < len(inputs["train"]):
        wrong.append("Some train inputs are written more than once.")
    first = next((row for _, row in read_jsonl(folder / "chat" / "val.jsonl")), None)
    if first is None or prompt_of(first) != found.prompt:
        wrong.append("The prompt in the manifest is not the one of the first val row.")
    if not found.gate.open or found.verdict != "plateau":
        wrong.append(
            f"The gate is not open, or the verdict is {found.verdict}: these rows were not meant "
            "to be trained on."
        )
    return wrong


def prompt_of(row: dict[str, Any]) -> str:
    """What a chat row asks, as `program.render` writes it."""
    return "\n".join(f"--- {m['role']} ---\n{m['content']}" for m in row["messages"][:-1]) + "\n"


def _asked(row: Any) -> str | None:
    messages = row.get("messages") if isinstance(row, dict) else None
    if (
        not messages
        or [m.get("role") for m in messages[-2:]] != ["user", "assistant"]
        or not messages[-1].get("content")
    ):
        return None
    return prompt_of(row)


def _letters(value: Any) -> int:
    """Of all texts in a row, role names left out."""
    if isinstance(value, dict):
        return sum(_letters(v) for k, v in value.items() if k != "role")
    return sum(map(_letters, value)) if isinstance(value, list) else len(str(value))

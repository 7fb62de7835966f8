"""The hand-off: rows in the forms trainers want, program, recipes and manifest in one folder.
Provider-neutral; starts no job.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from optimize import __version__
from optimize.catalogue import base_of
from optimize.data.inputs import input_texts
from optimize.data.rows import Splits
from optimize.data.split import Inputs, apart_from, folded
from optimize.files import unused, write_jsonl
from optimize.finetune.handoff.manifest import FILE, Facts, Manifest, prompt_of, record
from optimize.finetune.handoff.recipes import write_readme, write_recipes
from optimize.finetune.steps import Traces
from optimize.finetune.training_rows import (
    Taught,
    chat_row,
    completion_rows,
    preferences,
    schema_row,
    taught,
    tuned_student,
)
from optimize.program.compact_format import object_schema
from optimize.program.program import Program, save
from optimize.scoring.evaluation import Outcome

# what a hand-off itself holds
OWN = (
    *("chat", "json_schema", "completion", "preferences", "recipes"),
    *("program.json", "README.md", FILE),
)
# how rows were divided
GIVEN = "the task's own train, val and test files"
DIVIDED = (
    "one file divided by content hash, 60/15/25, stratified by label, near-duplicates on one side"
)


@dataclass(frozen=True)
class Material:
    """What rows are made from beside the rows themselves, all of the best prompt program.

    outcomes: on the train rows, in order, from which pairs for preference tuning are made. traces:
    for a program whose steps have no labels.
    """

    outcomes: Sequence[Outcome] = ()
    traces: Traces | None = None


def write_bundle(
    folder: Path, best: Program, splits: Splits, facts: Facts, material: Material | None = None
) -> Manifest:
    """Write the hand-off in place of what was at `folder`; test rows stay behind.

    What was put into an old one, such as weights trained on it, stays with it: in `folder` if both
    teach the same, else in the old one, which is then moved aside. Raises WorkbenchError for a
    program whose rows cannot be exported, before anything is written.
    """
    made = _made(tuned_student(best), splits, material or Material())
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _write_rows(part, made)
    save(made.program, part / "program.json")
    base = base_of(facts.lm)
    write_recipes(part, base, facts.epochs, facts.seed, bool(made.pairs))
    write_readme(part, base, bool(made.pairs), _told(best.task.name, facts))
    manifest = Manifest(
        workbench=__version__,
        written=date.today().isoformat(),
        task=best.task.name,
        base=base,
        split=GIVEN if splits.given else DIVIDED,
        rows={side: len(rows) for side, rows in splits.sides().items()},
        data_hash=splits.digest,
        removed=made.removed,
        format=made.program.format,
        prompt=prompt_of(made.chat["val"][0]),
        files={
            str(path.relative_to(part)): record(path)
            for path in sorted(part.rglob("*"))
            if path.is_file()
        },
        **{name: value for name, value in facts if name != "finetune"},
    )
    (part / FILE).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    _swap(folder, part)
    return manifest


def _swap(folder: Path, part: Path) -> None:
    put = [p for p in folder.iterdir() if p.name not in OWN] if folder.is_dir() else []
    if put and _taught(folder) != _taught(part):
        folder.rename(unused(folder))
    else:
        for path in put:
            shutil.move(path, part / path.name)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def _taught(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "chat").glob("*.jsonl"))]


@dataclass(frozen=True)
class _Made:
    """What rows become for the program that is tuned. sides: train and val, without those removed.
    chat: the same as conversations. pairs: preferences.
    """

    program: Program
    sides: dict[str, list[Taught]]
    chat: dict[str, list[dict[str, Any]]]
    pairs: list[dict[str, Any]]
    removed: dict[str, int]


def _made(program: Program, splits: Splits, material: Material) -> _Made:
    every = [e for rows in splits.sides().values() for e in rows]
    kept, removed = _without_overlap(splits, [input_texts(program.task, e) for e in every])
    traces = material.traces
    val = taught(program, splits.val, traces.val if traces else None)
    calls = [traces.train[n] for n in kept] if traces else None
    train = _new(taught(program, [splits.train[n] for n in kept], calls), val)
    sides = {"train": train, "val": val}
    chat = {side: [chat_row(program, one) for one in rows] for side, rows in sides.items()}
    outcomes = material.outcomes and [material.outcomes[n] for n in kept]
    pairs = preferences(program, chat["train"], outcomes) if outcomes else []
    return _Made(program, sides, chat, pairs, removed)


def _write_rows(folder: Path, made: _Made) -> None:
    """In each of the forms that trainers want."""
    for side, rows in made.sides.items():
        schemas = [schema_row(made.program, one) for one in rows]
        write_jsonl(folder / "chat" / f"{side}.jsonl", made.chat[side])
        write_jsonl(folder / "json_schema" / f"{side}.jsonl", schemas)
        write_jsonl(folder / "completion" / f"{side}.jsonl", completion_rows(made.chat[side]))
    if made.pairs:
        write_jsonl(folder / "preferences" / "train.jsonl", made.pairs)
    for name, schema in _schemas(made.program).items():
        text = json.dumps(schema, indent=1) + "\n"
        (folder / "json_schema" / name).write_text(text, encoding="utf-8")


def _told(task: str, facts: Facts) -> dict[str, str]:
    """What the folder's README says."""
    scores = [
        f"| {name} | {s.score:.3f} [{s.low:.3f}, {s.high:.3f}] | {s.n} |"
        for name, s in facts.before.items()
    ]
    return {
        "task": task,
        "lm": facts.lm,
        "target": str(facts.target),
        "reason": facts.reason,
        "scores": "\n".join(scores),
        "finetune": facts.finetune,
        "epochs": str(facts.epochs),
        "seed": str(facts.seed),
        "name": task.lower().replace("_", "-"),  # as providers let a data set be called
    }


def _new(rows: Sequence[Taught], others: Sequence[Taught]) -> list[Taught]:
    """The rows that ask what none of the others asks, each once: an inner step may be asked the
    same for two inputs.
    """
    held = {one.asked for one in others}
    return list({one.asked: one for one in rows if one.asked not in held}.values())


def _schemas(program: Program) -> dict[str, Any]:
    """The JSON Schema of the answer, or of each step's answer, by the file's name."""
    steps = program.named_predictors()
    return {
        f"{name.removeprefix('inner.')}.schema.json" if len(steps) > 1 else "schema.json": (
            object_schema(predictor.signature)
        )
        for name, predictor in steps
    }


def _without_overlap(splits: Splits, texts: list[Inputs]) -> tuple[list[int], dict[str, int]]:
    """The train rows that are neither written twice nor nearly a val or test row, and how many are
    not.
    """
    apart = apart_from(texts[: len(splits.train)], texts[len(splits.train) :])
    kept = list({tuple(map(folded, texts[n])): n for n in reversed(apart)}.values())[::-1]
    return kept, {"overlap": len(splits.train) - len(apart), "duplicates": len(apart) - len(kept)}

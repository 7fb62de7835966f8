"""The hand-off: rows in the forms trainers want, program, recipes and manifest in one folder.
Provider-neutral; starts no job.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from optimize import __version__
from optimize.data.rows import Splits, input_text
from optimize.data.split import apart_from, folded
from optimize.finetune import command
from optimize.finetune.handoff.manifest import FILE, Facts, Manifest, record
from optimize.finetune.handoff.recipes import write_readme, write_recipes
from optimize.finetune.training_rows import (
    TrainingRow,
    chat_rows,
    completion_rows,
    preferences,
    schema_rows,
    tuned_student,
)
from optimize.program.compact_format import object_schema
from optimize.program.program import Program, render, save
from optimize.scoring.evaluate import Outcome

BASES = {"embedded": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # where the LM's weights are on the hub


def write_bundle(
    folder: Path, best: Program, splits: Splits, facts: Facts, outcomes: Sequence[Outcome] = ()
) -> Manifest:
    """Write the hand-off in place of what was at `folder`; test rows stay behind.

    outcomes: the best prompt program's on the train rows, in order, from which pairs for preference
    tuning are made. Raises WorkbenchError for a program whose rows cannot be exported, before
    anything is written.
    """
    program, task = tuned_student(best), best.task
    kept, removed = _without_overlap(
        splits, [input_text(task, e.inputs()) for rows in splits.sides().values() for e in rows]
    )
    sides = {"train": [splits.train[n] for n in kept], "val": list(splits.val)}
    chat = {side: chat_rows(program, rows) for side, rows in sides.items()}
    pairs = preferences(program, chat["train"], [outcomes[n] for n in kept]) if outcomes else []
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for side, rows in sides.items():
        _write(part / "chat" / f"{side}.jsonl", chat[side])
        _write(part / "json_schema" / f"{side}.jsonl", schema_rows(program, rows))
        _write(part / "completion" / f"{side}.jsonl", completion_rows(chat[side]))
    if pairs:
        _write(part / "preferences" / "train.jsonl", pairs)
    (part / "json_schema" / "schema.json").write_text(
        json.dumps(object_schema(task.signature), indent=1) + "\n", encoding="utf-8"
    )
    save(program, part / "program.json")
    base = BASES.get(facts.lm)
    write_recipes(part, base, facts.epochs, facts.seed, bool(pairs))
    counts = {side: len(rows) for side, rows in splits.sides().items()}
    scores = [
        f"| {name} | {s.score:.3f} [{s.low:.3f}, {s.high:.3f}] | {s.n} |"
        for name, s in facts.before.items()
    ]
    told = {"task": task.name, "lm": facts.lm, "target": str(facts.target), "reason": facts.reason}
    told |= {"scores": "\n".join(scores), "finetune": command(task.name, facts.lm)}
    write_readme(part, base, bool(pairs), told)
    manifest = Manifest(
        workbench=__version__,
        written=date.today().isoformat(),
        task=task.name,
        base=base,
        split="rows.jsonl divided by content hash, 60/15/25, stratified by label, near-duplicates "
        "on one side; or the task's own files",
        rows=counts,
        data_hash=splits.digest,
        removed=removed,
        format=program.format,
        prompt=render(program, splits.val[0]),
        files={
            str(path.relative_to(part)): record(path)
            for path in sorted(part.rglob("*"))
            if path.is_file()
        },
        **dict(facts),
    )
    (part / FILE).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    return manifest


def _without_overlap(splits: Splits, texts: list[str]) -> tuple[list[int], dict[str, int]]:
    """The train rows that are neither written twice nor nearly a val or test row, and how many are
    not.
    """
    apart = apart_from(texts[: len(splits.train)], texts[len(splits.train) :])
    kept = list({folded(texts[n]): n for n in reversed(apart)}.values())[::-1]
    return kept, {"overlap": len(splits.train) - len(apart), "duplicates": len(apart) - len(kept)}


def _write(path: Path, rows: Sequence[TrainingRow]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )

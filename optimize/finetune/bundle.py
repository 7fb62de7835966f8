"""The hand-off: rows, program and manifest in one folder, for any trainer. Provider-neutral; starts no job."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from optimize import __version__
from optimize.devset import Splits
from optimize.finetune.rows import chat_rows, tuned_student
from optimize.program import Program, save


def write_bundle(folder: Path, best: Program, splits: Splits, facts: dict[str, Any]) -> Path:
    """Write train.jsonl, val.jsonl, program.json and manifest.json; test rows stay behind.

    facts: what the run knows (task, LM, target, verdict, scores), copied into the manifest beside the files' SHA-256.
    """
    program = tuned_student(best)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, examples in (("train", splits.train), ("val", splits.val)):
        rows = chat_rows(program, examples)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        files[f"{name}.jsonl"] = {"rows": len(rows), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    save(program, folder / "program.json")
    files["program.json"] = {"sha256": hashlib.sha256((folder / "program.json").read_bytes()).hexdigest()}
    manifest = {"workbench": __version__, "format": program.format, "data_hash": splits.digest, "files": files, **facts}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder

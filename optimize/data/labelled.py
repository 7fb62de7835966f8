"""The file of rows that a person has labelled one by one: each is in it whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimize.data.inputs import input_texts
from optimize.data.read import LABELLED, Placed, read_file
from optimize.errors import WorkbenchError
from optimize.files import json_value, plain, read_jsonl, read_text, to_json, write_whole
from optimize.task import Task


def labelled_file(task: Task) -> Path:
    return task.folder / LABELLED


def read_labelled(task: Task) -> list[Placed]:
    """The rows that were chosen to be labelled; none where there is no such file, or none in it.

    Raises WorkbenchError for an empty text: a row that was left open has it, where it would pass
    for none in an optional output.
    """
    path = labelled_file(task)
    lines = read_jsonl(path) if path.is_file() else []
    for number, row in lines:
        for name in task.signature.output_fields if isinstance(row, dict) else ():
            if row.get(name) == "":
                raise WorkbenchError(
                    f"{path}:{number}: field {name!r} is empty; write its label (null for none), "
                    "or remove the row."
                )
    return read_file(task, path) if lines else []


def put(task: Task, row: Mapping[str, Any]) -> int:
    """Write a row; one with the same inputs is replaced. How many rows the file has then.

    Raises WorkbenchError where the file holds a line that is none.
    """
    path = labelled_file(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = read_text(path).split("\n") if path.exists() else []
    kept = [line for line in lines if line.strip() and not _same(task, line, row)]
    kept.append(json.dumps(plain(dict(row)), ensure_ascii=False))
    write_whole(path, "\n".join(kept) + "\n")
    return len(kept)


def count(task: Task) -> int:
    """Rows of the file; 0 where there is none."""
    path = labelled_file(task)
    lines = read_text(path).split("\n") if path.exists() else []
    return sum(bool(line.strip()) for line in lines)


def _same(task: Task, line: str, row: Mapping[str, Any]) -> bool:
    try:
        known = json_value(line, str(labelled_file(task)))
    except WorkbenchError as error:
        raise WorkbenchError(f"{error} Mend the line; nothing was written.") from None
    return isinstance(known, dict) and input_texts(task, known) == input_texts(
        task, json.loads(to_json(dict(row)))
    )

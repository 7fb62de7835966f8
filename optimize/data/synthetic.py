"""Rows that an LM wrote: read, marked, kept away from every row that judges. Knows no LM.

They lie in a file of their own and are no train rows: nothing counts, splits or trains on them
unless it asks for them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import dspy

from optimize.data.inputs import input_texts
from optimize.data.judging_rows import lent
from optimize.data.read import SYNTHETIC, read_file
from optimize.data.rows import Splits, row_hash
from optimize.data.split import apart_from, near_graph
from optimize.errors import WorkbenchError
from optimize.files import plain, read_text, to_json, write_whole
from optimize.task import Task

MARK = "_synthetic"  # the column that says who wrote a row, and after which rows
Fault = Literal["", "leak", "duplicate"]


@dataclass(frozen=True)
class Mark:
    """Where a synthetic row comes from. number: of the draw it was written for. seeds: hashes of
    the train rows that its writer was shown. style: what else it was asked for. confirmed: how
    often an LM that did not see its outputs gave the same.
    """

    number: int = -1
    teacher: str = ""
    seeds: tuple[str, ...] = ()
    style: str = ""
    confirmed: int = 0


def synthetic_file(task: Task) -> Path:
    return task.folder / f"{SYNTHETIC}.jsonl"


def read_synthetic(task: Task) -> list[dspy.Example]:
    """All rows of the file, sound or not; none where there is no file.

    Raises WorkbenchError naming line and field of one that does not fit the signature.
    """
    path = synthetic_file(task)
    if not path.is_file() or not read_text(path).strip():
        return []
    return [row for _, row in read_file(task, path)]


def mark_of(row: dspy.Example) -> Mark:
    """A row without a mark, or with half of one, was put there by hand."""
    found: Any = row.get(MARK)
    if not isinstance(found, dict):
        return Mark()
    number, seeds = found.get("number"), found.get("seeds")
    return Mark(
        number if isinstance(number, int) else -1,
        str(found.get("teacher", "")),
        tuple(map(str, seeds)) if isinstance(seeds, list) else (),
        str(found.get("style", "")),
    )


def with_synthetic(task: Task, splits: Splits) -> Splits:
    """The split with its synthetic rows, those left out that are near copies of a row that judges,
    or were written after one: rows that moved to another side since must not judge their own
    copies. Told of the uncut split, so that every run uses the same rows.
    """
    rows = read_synthetic(task)
    if not rows:
        return splits
    shown, judge = lent(task, splits.whole or splits)
    learn = {seed_name(task, e) for e in shown}
    apart = set(apart_from(_texts(task, rows), _texts(task, [*judging(splits), *judge])))
    sound = [row for n, row in enumerate(rows) if n in apart and set(mark_of(row).seeds) <= learn]
    note = (
        f"{len(sound)} synthetic rows: a climb tries demos with them as a lever of its own; they "
        "count as no labelled rows."
    )
    if left := len(rows) - len(sound):
        note += (
            f" {left} more are left out: a row that judges is like them, or the rows they were "
            "written after are no longer there to learn from."
        )
    return replace(splits, synthetic=tuple(sound), notes=(*splits.notes, note))


def judging(splits: Splits) -> list[dspy.Example]:
    """Rows that no synthetic row may resemble: val, test and those out of distribution, uncut."""
    whole = splits.whole or splits
    return [*whole.val, *whole.test, *whole.ood]


def faults(
    task: Task, splits: Splits, known: Sequence[dspy.Example], written: Sequence[dspy.Example]
) -> list[Fault]:
    """What is wrong with each row written: its inputs are nearly those of a row that judges, of a
    train row, of a known synthetic one, or of a sound one written before it.
    """
    new = _texts(task, written)
    apart = set(apart_from(new, _texts(task, judging(splits)))) if written else set()
    before = _texts(task, [*splits.train, *known])
    graph = near_graph([*before, *new]) if written else None
    sound = set(range(len(before)))
    found: list[Fault] = []
    for n in range(len(written)):
        place = len(before) + n
        near = set(graph[place].indices) if graph is not None else set()
        found.append("leak" if n not in apart else "duplicate" if near & sound else "")
        if not found[-1]:
            sound.add(place)
    return found


def next_number(task: Task, known: Sequence[dspy.Example]) -> int:
    """The first draw after all that a row was kept of, rows that were taken out of the file since
    among them; 0 where none is left. known: all rows of the file.
    """
    if not known:
        return 0
    last = max(mark_of(row).number for row in known)
    with suppress(WorkbenchError, ValueError):
        last = max(last, int(read_text(_last_number(task))))
    return last + 1


def _last_number(task: Task) -> Path:
    return task.root / "mlruns" / "synthesize" / f"{task.name}.txt"


def append(task: Task, rows: Sequence[tuple[dspy.Example, Mark]]) -> None:
    """Add rows to the file, all of them or none."""
    if not rows:
        return
    path = synthetic_file(task)
    old = read_text(path) if path.is_file() else ""
    lines = []
    for row, mark in rows:
        fields = {name: plain(row[name]) for name in task.fields}
        kept = {**vars(mark), "seeds": list(mark.seeds)}
        lines.append(to_json({**fields, MARK: kept}) + "\n")
    for file in (path, _last_number(task)):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, old + ("\n" if old and not old.endswith("\n") else "") + "".join(lines))
    write_whole(_last_number(task), str(max(mark.number for _, mark in rows)))


def seed_name(task: Task, row: dspy.Example) -> str:
    return row_hash(task, row)[:16]


def _texts(task: Task, rows: Sequence[dspy.Example]) -> list[tuple[str, ...]]:
    return [input_texts(task, row) for row in rows]

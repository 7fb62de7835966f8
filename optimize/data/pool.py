"""Rows that nobody has labelled, out of a file of any size: which of them are worth a label at all.
Knows no LM.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from optimize.data.inputs import input_texts
from optimize.data.read import row_inputs
from optimize.data.rows import Splits
from optimize.data.split import Inputs, folded, near_duplicate_groups
from optimize.data.stream import Given, Rows
from optimize.errors import WorkbenchError
from optimize.files import plain
from optimize.task import PLACE, Task

MOST = 2000  # rows of a file that are looked at: near copies among so many are found in seconds


@dataclass(frozen=True)
class Pool:
    """rows: those that may be labelled, in the file's order, of a random sample. total: rows of the
    file. sampled: of these, those in the sample. left_out: why rows were not taken, and how many.
    problem: of the first row that cannot be read.
    """

    rows: tuple[dspy.Example, ...]
    total: int
    sampled: int
    left_out: Mapping[str, int]
    problem: str


def read_pool(
    task: Task, path: Path, splits: Splits, skipped: Collection[Inputs] = (), seed: int = 0
) -> Pool:
    """The rows of a file that have no label yet, but for those that train, val or test has, or
    nearly has, and but for near copies of each other.

    skipped: inputs of rows that a person could not label, as `key` has them.
    """
    sides = splits.sides()
    known = {key(task, e) for rows in sides.values() for e in rows}
    passed, rng, left = set(skipped), random.Random(seed), Counter[str]()
    kept: list[tuple[int, dspy.Example]] = []
    total = fit = 0
    problem = ""
    for total, given in enumerate(Rows(path), 1):
        try:
            row = _row(task, given)
        except WorkbenchError as error:
            problem = problem or str(error)
            left["unread"] += 1
            continue
        texts = key(task, row)
        if why := _why_not(task, given, texts in known, texts in passed):
            left[why] += 1
            continue
        fit += 1  # a random sample of rows whose number is not known (reservoir, Vitter 1985)
        at = len(kept) if len(kept) < MOST else rng.randrange(fit)
        if at < MOST:
            kept[at : at + 1] = [(total, row)]
    drawn = [row for _, row in sorted(kept, key=lambda pair: pair[0])]
    rows, more = _apart(task, drawn, [e for side in sides.values() for e in side])
    return Pool(tuple(rows), total, len(drawn), dict(left + more), problem)


def key(task: Task, row: Mapping[str, object]) -> Inputs:
    """What makes two rows the same one: their inputs, but for case and white space."""
    return tuple(map(folded, input_texts(task, row)))


def _row(task: Task, given: Given) -> dspy.Example:
    """With all columns that can be written again, but for empty outputs, which are no answers.

    Raises WorkbenchError for one that cannot be read.
    """
    if given.problem:
        raise WorkbenchError(given.problem)
    inputs, outputs = row_inputs(task, given.columns, given.place), task.signature.output_fields
    beside = {n: v for n, v in given.columns.items() if n not in outputs and _is_json(v)}
    row = dspy.Example(**{**beside, **inputs}).with_inputs(*task.signature.input_fields)
    setattr(row, PLACE, given.place)
    return row


def _is_json(value: Any) -> bool:
    """Whether a line of JSON can hold the value; the bytes of a Parquet file it cannot."""
    try:
        plain(value)
    except ValueError:
        return False
    return True


def _why_not(task: Task, given: Given, known: bool, skipped: bool) -> str:
    labelled = any(given.columns.get(n) not in (None, "") for n in task.signature.output_fields)
    return "labelled" if labelled else "known" if known else "skipped" if skipped else ""


def _apart(
    task: Task, rows: list[dspy.Example], known: list[dspy.Example]
) -> tuple[list[dspy.Example], Counter[str]]:
    """Rows that are nearly the same as no known one, one of each group of near copies."""
    if not rows:
        return [], Counter()
    groups = near_duplicate_groups([input_texts(task, e) for e in (*rows, *known)])
    taken, seen = set(groups[len(rows) :]), set[int]()
    found, left = [], Counter[str]()
    for row, group in zip(rows, groups, strict=False):
        if group in taken or group in seen:
            left["near" if group in taken else "copies"] += 1
        else:
            found.append(row)
        seen.add(group)
    return found, left

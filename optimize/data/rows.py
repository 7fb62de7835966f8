"""Labelled rows → validated Examples → Splits.

Knows no LM; `read.py` reads the files, `split.py` decides which row goes where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy

from optimize.data.inputs import input_texts
from optimize.data.labelled import read_labelled
from optimize.data.read import (
    BESIDE,
    LABELLED,
    NAMES,
    Placed,
    read_file,
    read_folder,
    read_hub,
)
from optimize.data.split import (
    FEWEST,
    apart_from,
    connected,
    near_duplicate_groups,
    near_graph,
    split_groups,
)
from optimize.errors import WorkbenchError
from optimize.files import to_json
from optimize.task import Task


@dataclass(frozen=True)
class Splits:
    """train: optimizers learn. val: programs are compared. test: read once, at the end.

    digest: SHA-256 over every row and its side. places: file and line of each row, by its hash.
    ood: rows out of the others' distribution, which a tuned LM is asked as well; one without
    outputs has no right answer. unlabelled: inputs a teacher may answer. given: the sides are the
    task's own files, not divided from one. chosen: hashes of the train rows that were picked to be
    labelled, so that they are no random sample and judge nothing. notes: what was made of the
    files, where that may surprise. whole: the split before it was cut. synthetic: rows that an LM
    wrote, which may be shown as demos and are none of the sides (data/synthetic.py).
    """

    train: tuple[dspy.Example, ...]
    val: tuple[dspy.Example, ...]
    test: tuple[dspy.Example, ...]
    digest: str
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    ood: tuple[dspy.Example, ...] = ()
    unlabelled: tuple[dspy.Example, ...] = ()
    given: bool = False
    chosen: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=(), compare=False)
    whole: Splits | None = field(default=None, compare=False, repr=False)
    synthetic: tuple[dspy.Example, ...] = ()

    def sides(self) -> dict[str, tuple[dspy.Example, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}

    def at_most(self, val: int | None, test: int | None) -> Splits:
        """The same split with val and test cut to their first rows (in content-hash order: a random
        sample).
        """
        smaller = replace(self, val=self.val[:val], test=self.test[:test])
        return (
            smaller
            if smaller == self
            else replace(
                smaller,
                digest=f"{self.digest}:{len(smaller.val)}:{len(smaller.test)}",
                whole=self.whole or self,
            )
        )


def load_splits(task: Task) -> Splits:
    """The task's rows, checked against its signature and divided.

    Three files train/val/test in the task's folder (or three splits on the hub) are taken as they
    are; a single `rows` file is split by content hash. Either way rows of `labelled.jsonl` go to
    train, and move no other row. Raises WorkbenchError naming file, line and field.
    """
    placed, notes = read_hub(task) if task.data else read_folder(task)
    places: dict[str, tuple[str, ...]] = {}
    hashes: dict[int, str] = {}
    picked = read_labelled(task)
    for rows in (*placed.values(), picked):
        for place, example in rows:
            hashes[id(example)] = row = row_hash(task, example)
            places[row] = (*places.get(row, ()), place)
    # so that a file's order means nothing
    sides = {
        name: sorted((example for _, example in rows), key=lambda e: hashes[id(e)])
        for name, rows in placed.items()
    }
    given = set(sides) != {"rows"}
    if not given:
        sides = _divided(task, sides["rows"], hashes)
    picked, more = _apart(task, picked, [*sides["val"], *sides["test"]])
    sides["train"] = sorted([*sides["train"], *(e for _, e in picked)], key=lambda e: hashes[id(e)])
    for name in NAMES:
        if len(sides[name]) < FEWEST:
            raise WorkbenchError(
                f"Task {task.name!r}: {len(sides[name])} {name} rows, at least {FEWEST} are "
                f"needed. Add labelled rows to {task.data or task.folder}."
            )
    digest = hashlib.sha256(
        "\n".join(f"{name} {hashes[id(e)]}" for name in NAMES for e in sides[name]).encode()
    ).hexdigest()
    beside = {stem: path for stem in BESIDE if (path := task.folder / f"{stem}.jsonl").is_file()}
    extra: dict[str, Any] = {
        stem: tuple(example for _, example in read_file(task, path))
        for stem, path in beside.items()
    }
    return Splits(
        tuple(sides["train"]),
        tuple(sides["val"]),
        tuple(sides["test"]),
        digest,
        places,
        notes=(*notes, *more),
        given=given,
        chosen=frozenset(hashes[id(e)] for _, e in picked),
        **extra,
    )


def _divided(
    task: Task, rows: Sequence[dspy.Example], hashes: Mapping[int, str]
) -> dict[str, list[dspy.Example]]:
    """The sides of a single file. hashes: of the rows' contents, by their id."""
    groups = near_duplicate_groups([input_texts(task, e) for e in rows])
    names = split_groups([hashes[id(e)] for e in rows], _labels(task, rows), groups)
    return {name: [e for e, n in zip(rows, names, strict=True) if n == name] for name in NAMES}


def _apart(
    task: Task, picked: list[Placed], held: list[dspy.Example]
) -> tuple[list[Placed], list[str]]:
    """The picked rows that are not nearly the same as one that judges, and what is said of them."""
    if not picked:
        return [], []
    texts = [[input_texts(task, e) for e in rows] for rows in ([e for _, e in picked], held)]
    kept = [picked[n] for n in apart_from(*texts)]
    notes = [f"{LABELLED}: {len(kept)} rows for train alone, since they were chosen, not drawn."]
    if left := len(picked) - len(kept):
        notes += [f"Left out of {LABELLED}: {left}, since val or test has nearly the same."]
    return kept, notes


def row_hash(task: Task, example: dspy.Example) -> str:
    """SHA-256 of the row's fields, independent of file, order and extra columns."""
    return hashlib.sha256(
        to_json({name: example[name] for name in task.fields}).encode()
    ).hexdigest()


def alike(task: Task, splits: Splits) -> Any:
    """rows × rows, sparse, of train, val and test in this order: which are nearly equal.

    Told on the whole split: among fewer rows others may seem alike, and a cut split would overlap
    where the whole one does not.
    """
    whole = (splits.whole or splits).sides()
    graph = near_graph([input_texts(task, e) for rows in whole.values() for e in rows])
    kept: list[int] = []
    start = 0
    for side, rows in splits.sides().items():
        kept += range(start, start + len(rows))  # a cut side is the first rows of the whole one
        start += len(whole[side])
    return graph[kept][:, kept]


def near_groups(task: Task, splits: Splits) -> dict[str, list[int]]:
    """For each side the group of each of its rows: nearly equal rows share one."""
    found = iter(connected(alike(task, splits)))
    return {side: [next(found) for _ in rows] for side, rows in splits.sides().items()}


def _labels(task: Task, rows: Sequence[dspy.Example]) -> list[str]:
    return [to_json(e[task.label]) if task.label else "" for e in rows]

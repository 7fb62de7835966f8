"""Rows with their answers on their way to OUT and, where they are to be looked at, to the review
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optimize.commands.applying.answering import Answer, Answered
from optimize.data.stream import Given, row_id
from optimize.errors import WorkbenchError
from optimize.files import plain, unused
from optimize.lm.weights import sha256
from optimize.report.answers import Columns, Out, Written, columns_of, foreign
from optimize.task import Task

NAMES = 20  # of columns left out that are told
ERRORS = 3  # that are told
SUGGESTED = "suggested"  # what the LM has answered
BESIDE = "part", "sha256"  # the review file to be, and what was written there last


@dataclass
class Tally:
    """What is in OUT. errors: the first few different ones."""

    rows: int = 0
    failed: int = 0
    confident: int = 0
    errors: list[str] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.rows += 1
        self.failed += bool(answer.error)
        self.confident += answer.confidence is not None
        if answer.error and len(self.errors) < ERRORS and answer.error not in self.errors:
            self.errors.append(answer.error)


class Writer:
    """Everything that is written of a row.

    left_out: columns that OUT's form cannot hold, since the first rows do not have them.
    """

    def __init__(self, path: Path, out: Out, columns: Columns, task: Task, review: Review) -> None:
        self.path, self.out, self.columns, self.task, self.review = path, out, columns, task, review
        self.tally, self.left_out = Tally(), set[str]()
        self._takes_any, self._caught_up = path.suffix == ".jsonl", False

    def skip_written(self, source: Iterator[Given]) -> None:
        """Take the rows from the source that OUT holds already.

        Raises WorkbenchError where these are others.
        """
        for number, kept in enumerate(self.out.written(), 1):
            row = next(source, None)
            if row is None:
                raise foreign(self.path, f"it has more than the {number - 1:,} that are given")
            if kept.row_id not in (name := self._name(row), self.out.as_kept(name)):
                raise foreign(self.path, f"row {number:,} is not {row.place}")
            if changed := self._changed(row, kept):
                raise foreign(
                    self.path, f"{row.place} has another {changed!r} than when it was answered"
                )
            self._note(row, kept.row_id, Answer(kept.answer, kept.confidence, kept.error or ""))
        self._caught_up = True

    def write(self, row: Given, answer: Answer) -> None:
        name, names, ours = self._name(row), self.columns, set(self.columns.ours)
        # a row far down may have a column that the answers have taken
        given = {f"given_{key}" if key in ours else key: v for key, v in row.columns.items()}
        if not self._takes_any and len(self.left_out) < NAMES:
            self.left_out |= given.keys() - set(names.given)
        found = {column: answer.outputs.get(output) for output, column in names.outputs.items()}
        found |= {names.confidence: answer.confidence, names.error: answer.error or None}
        self.out.write(given | found | {names.row_id: name})
        self._note(row, name, answer)

    def _name(self, row: Given) -> str:
        return row_id(self.task.signature.input_fields, row)

    def _changed(self, row: Given, kept: Written) -> str:
        """The input whose text is another one than in OUT; empty where none is."""
        for name in self.task.signature.input_fields:
            now, before = row.columns.get(name), kept.given.get(name)
            if not (isinstance(now, str) and isinstance(before, str)):
                continue  # a number may be kept as another type
            if before not in (now, self.out.as_kept(now)):
                return str(name)
        return ""

    def _note(self, row: Given, name: str, answer: Answer) -> None:
        self.tally.add(answer)
        self.review.add(row, name, answer)

    def close(self) -> None:
        self.out.close()
        self.review.close(self._caught_up)


class Review:
    """Rows to be labelled by a person, in the form of the task's own; each command writes them
    anew. below: rows less sure than that are, and those that failed; None: none.

    A file in which a person has written since is kept, under another name.
    """

    def __init__(self, path: Path, below: float | None, inputs: Iterable[str]) -> None:
        self.path, self.below, self.inputs, self.count = path, below, list(inputs), 0
        self._columns = columns_of(self.inputs, [SUGGESTED])
        self._part, self._known = (path.with_name(f"{path.name}.{kind}") for kind in BESIDE)
        self._file = self._part.open("w", encoding="utf-8") if below is not None else None

    def add(self, row: Given, name: str, answer: Answer) -> None:
        unsure = answer.confidence is not None and answer.confidence < (self.below or 0.0)
        if self._file is None or not (unsure or answer.error):
            return
        told: dict[str, Any] = {key: plain(row.columns.get(key)) for key in self.inputs}
        ours = self._columns
        told |= {ours.outputs[SUGGESTED]: answer.outputs, ours.confidence: answer.confidence}
        told |= {ours.error: answer.error or None, ours.row_id: name}
        self._file.write(json.dumps(told, ensure_ascii=False) + "\n")
        self.count += 1

    def close(self, caught_up: bool) -> None:
        """caught_up: it was told of all rows that OUT held before; else nothing is written."""
        if not self._file:
            return
        self._file.close()
        if not caught_up:
            self._part.unlink()
            return
        written = self._known.read_text() if self._known.is_file() else ""
        if self.path.exists() and sha256(self.path) != written:
            self.path.rename(unused(self.path))
        self._part.replace(self.path)
        self._known.write_text(sha256(self.path))


def judged(pilot: list[Answered]) -> list[Answered]:
    """Raises WorkbenchError where more than half of the rows failed."""
    failed = [answer.error for _, answer in pilot if answer.error]
    if len(failed) > len(pilot) / 2:
        raise WorkbenchError(
            f"{len(failed)} of the first {len(pilot)} rows failed, so none of them was written. "
            f"The first: {failed[0]} Mend it and give the same command again: what was answered "
            "is cached."
        )
    return pilot

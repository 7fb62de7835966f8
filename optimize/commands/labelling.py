"""The use case `label`, second half: a person labels the chosen rows, in a terminal or on a page.

Every answer is kept as it is given, so that whoever stops loses nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from optimize.commands.label import Chosen
from optimize.data.labelled import count, labelled_file, put
from optimize.data.pool import key
from optimize.data.read import read_output, row_inputs, row_outputs
from optimize.data.split import Inputs
from optimize.errors import WorkbenchError
from optimize.files import plain, read_text, to_json, write_whole
from optimize.report.labelling import Choice, Labelling
from optimize.scoring.disagreement import likeness
from optimize.stats.intervals import mean_interval
from optimize.stats.records import ScoreRecord
from optimize.task import Task


class Work(BaseModel):
    """A chosen row and what became of it. guess: the champion's outputs, which are not shown."""

    place: str
    columns: dict[str, Any]
    guess: dict[str, Any] | None = None
    label: dict[str, Any] | None = None
    skipped: bool = False

    @property
    def open(self) -> bool:
        return self.label is None and not self.skipped


class State(BaseModel):
    """rows: the file they were chosen from. skipped: inputs of rows of any choice that nobody could
    label.
    """

    rows: str = ""
    work: list[Work] = []
    skipped: list[list[str]] = []


class Sitting:
    """The rows chosen last for a task, of which some may be labelled."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.path = task.root / "mlruns" / "label" / f"{task.name}.json"
        self.state = _read(self.path)
        self._lock = threading.Lock()

    @property
    def work(self) -> Sequence[Work]:
        return self.state.work

    @property
    def choice(self) -> str:
        """A name of the chosen rows that no others have, of no other task either."""
        rows = [(row.place, row.columns) for row in self.work]
        return sha256(to_json([self.task.name, rows]).encode()).hexdigest()[:16]

    @property
    def skipped(self) -> list[Inputs]:
        return [tuple(texts) for texts in self.state.skipped]

    def goes_on(self, rows: Path) -> bool:
        """Whether rows chosen from that file are still to be labelled."""
        return self.state.rows == str(rows.resolve()) and any(row.open for row in self.work)

    def begin(self, rows: Path, chosen: Chosen) -> None:
        """Take other rows. What was labelled of those before is in the task's file."""
        pairs = zip(chosen.choice.chosen, chosen.guesses, strict=True)
        work = [
            Work(place=row.place, columns=plain(row.columns), guess=plain(guess))
            for row, guess in pairs
        ]
        self.state = State(rows=str(rows.resolve()), work=work, skipped=self.state.skipped)
        self._keep()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other command labels rows of the task; WorkbenchError where one does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise WorkbenchError(
                f"Rows of {self.task.name!r} are being labelled by another command; end that first."
            ) from None
        try:
            self.state = _read(self.path)
            yield
        finally:
            lock.release()

    def label(self, number: int, typed: Mapping[str, str]) -> None:
        """Keep the outputs of a row. Raises WorkbenchError, naming the field, for one that does not
        fit its type; nothing is kept then.
        """
        work = self._row(number)
        outputs = {
            name: read_output(self.task, name, typed.get(name, "").strip())
            for name in self.task.signature.output_fields
        }
        with self._lock:
            put(self.task, {**work.columns, **outputs})
            self._turn(work, False)
            work.label = plain(outputs)
            self._keep()

    def skip(self, number: int) -> None:
        """Leave a row out, now and when rows are chosen again. A label it has stays."""
        work = self._row(number)
        with self._lock:
            self._turn(work, work.label is None)
            self._keep()

    def _row(self, number: int) -> Work:
        if not 0 <= number < len(self.work):
            raise WorkbenchError(f"There is no row {number}; there are {len(self.work)}.")
        return self.work[number]

    def _turn(self, work: Work, skipped: bool) -> None:
        work.skipped, texts = skipped, list(key(self.task, work.columns))
        self.state.skipped = [known for known in self.state.skipped if known != texts]
        self.state.skipped += [texts] if skipped else []

    def _keep(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.state.model_dump_json(indent=1))

    def found(self) -> Labelling:
        """What came of it so far."""
        scores = [score for row in self.work if (score := self._agrees(row)) is not None]
        path = labelled_file(self.task)
        return Labelling(
            task=self.task.name,
            labelled=sum(row.label is not None for row in self.work),
            skipped=sum(row.skipped for row in self.work),
            left=sum(row.open for row in self.work),
            agreement=ScoreRecord.of(mean_interval(scores)) if scores else None,
            file=str(path.relative_to(self.task.root)),
            in_all=count(self.task),
        )

    def _agrees(self, row: Work) -> float | None:
        """How far the champion's answer is the label; None where one of them is not known."""
        if row.label is None or row.guess is None:
            return None
        with suppress(WorkbenchError):  # of a type that the task no longer has
            inputs = row_inputs(self.task, row.columns, row.place)
            label, guess = (
                row_outputs(self.task, said, row.place) for said in (row.label, row.guess)
            )
            return likeness(self.task, {**row.columns, **inputs}, label, guess)
        return None


def _read(path: Path) -> State:
    """What is kept of the last choice; nothing where that is no longer to be read."""
    with suppress(WorkbenchError, ValidationError):
        return State.model_validate_json(read_text(path))
    return State()


def check_blank(out: Path) -> None:
    """Raises WorkbenchError where the chosen rows cannot be written there."""
    if out.suffix != ".jsonl":
        raise WorkbenchError(f"--out {out}: chosen rows are written to a .jsonl file.")
    if out.exists():
        raise WorkbenchError(f"--out {out} is there already, maybe with labels: name another file.")


def write_blank(task: Task, found: Choice, out: Path) -> None:
    """The chosen rows, a line each, with empty outputs."""
    blank = dict.fromkeys(task.signature.output_fields, "")
    lines = [json.dumps(plain(row.columns) | blank, ensure_ascii=False) for row in found.chosen]
    write_whole(out, "\n".join(lines) + "\n")

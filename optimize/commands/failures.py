"""The val rows that a program gets wrong, by the kind of lever that fits them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from pydantic import TypeAdapter, ValidationError

from optimize.data.fields import field_type
from optimize.data.rows import Splits, load_splits, row_hash
from optimize.program.program import parse_program
from optimize.report.rungs import RowRecord, WrongRows, WrongRowsByKind
from optimize.scoring.evaluation import Outcome
from optimize.scoring.failures import LEVERS, cut_answers, meaning, sorted_by_kind
from optimize.store.rungs import find_rung
from optimize.task import Task, load_task


def failures(root: Path, name: str) -> WrongRowsByKind:
    """The wrong val rows of RUN's best program, or of RUN~rung. The kinds are told by the rows and
    the corpus as they are now. Asks no LM.

    Raises WorkbenchError where there is no such program, or its task does not load.
    """
    run, rung = find_rung(root, name)
    task = load_task(run.task, root)
    records, splits = rung.rows(), load_splits(task)
    found = _matched(task, splits, records)
    program = parse_program(task, rung.text("program.json"), rung.found.name, _unasked)
    rows, outcomes = [one.row for one in found], [one.outcome for one in found]
    # where rows were split anew, a row must not be its own nearest neighbour
    train = [row for row in splits.train if not any(row is one for one in rows)]
    wrong = sorted_by_kind(program, train, rows, outcomes) if found else {}
    return WrongRowsByKind(
        run=run.id,
        task=run.task,
        rung=rung.rung,
        scored=sum(outcome.score is not None for outcome in outcomes),
        wrong=sum(map(len, wrong.values())),
        gone=len(records) - len(found),
        failed=sum(record.score is None for record in records),
        kinds=[
            WrongRows(
                kind=kind,
                meaning=meaning(kind, cut_answers(outcomes)[1]),
                lever=LEVERS[kind],
                count=len(lost),
                lost=round(sum(points for _, points in lost), 6),
                rows=[found[n].record for n, _ in lost],
            )
            for kind, lost in wrong.items()
        ],
    )


def _unasked(name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}")  # a tuned program is looked at, not asked


@dataclass(frozen=True)
class _Matched:
    """A row of the devset with what the run has on record of it."""

    row: dspy.Example
    outcome: Outcome
    record: RowRecord


def _matched(task: Task, splits: Splits, records: list[RowRecord]) -> list[_Matched]:
    """The records whose row is still in the devset, on whatever side."""
    now = {row_hash(task, e): e for rows in splits.sides().values() for e in rows}
    length = len(records[0].row) if records else 0
    short = {whole[:length]: row for whole, row in now.items()}
    return [
        _Matched(short[record.row], _outcome(task, record), record)
        for record in records
        if record.row in short
    ]


def _outcome(task: Task, record: RowRecord) -> Outcome:
    """The outcome as it was, its answer read as the fields' types again where it fits them."""
    answer = _typed(task, record.answer)
    return Outcome(record.score, answer, record.feedback, record.error, cut=record.cut)


def _typed(task: Task, answer: dict[str, Any]) -> dict[str, Any]:
    fields = task.signature.output_fields
    try:
        return {
            name: TypeAdapter(field_type(fields[name])).validate_python(value)
            if name in fields
            else value
            for name, value in answer.items()
        }
    except ValidationError:
        return answer

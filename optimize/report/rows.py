"""Rows with what programs answered to them: what is kept of a run row by row. Knows no screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dspy
from pydantic import Field

from optimize.data.rows import row_hash
from optimize.files import to_text
from optimize.scoring.evaluation import Evaluation
from optimize.scoring.slices import slices
from optimize.stats.records import Record
from optimize.task import Task

LIKE = 1000  # train rows, a random sample, that others are likened to: every run pays for it


class Answers(Record):
    """One program's answers, a row each; fewer than there are rows where a race was stopped."""

    fields: dict[str, list[str]] = Field(description="output field → answer a row; empty: none")
    scores: list[float | None] = Field(description="null: the call failed")
    feedback: list[str] = Field(description="of the metric, or what failed")
    confidence: list[float | None] = Field(description="null: not known")


class RowTable(Record):
    """Rows of one side, column by column, and each program's answers to them.

    rows: content hashes. slices: row numbers by kind of row; rows lie in several.
    """

    rows: list[str]
    inputs: dict[str, list[str]]
    gold: dict[str, list[str]]
    programs: dict[str, Answers]
    slices: dict[str, list[int]] = Field(default={})


def row_table(
    task: Task,
    train: Sequence[dspy.Example],
    rows: Sequence[dspy.Example],
    found: Mapping[str, Evaluation],
) -> RowTable:
    """Of a side's rows and evaluations on all of them, by program."""
    fields = task.signature
    return RowTable(
        rows=[row_hash(task, e) for e in rows],
        inputs={n: [to_text(e[n]) for e in rows] for n in fields.input_fields},
        gold={n: [to_text(e[n]) for e in rows] for n in fields.output_fields},
        programs={name: answers(task, evaluation) for name, evaluation in found.items()},
        slices=slices(task, train[:LIKE], rows),
    )


def answers(task: Task, found: Evaluation) -> Answers:
    outcomes = found.outcomes
    return Answers(
        fields={
            name: [to_text(o.answer[name]) if name in o.answer else "" for o in outcomes]
            for name in task.signature.output_fields
        },
        scores=list(found.scores),
        feedback=["; ".join(filter(None, (o.error, o.feedback))) for o in outcomes],
        confidence=[o.confidence for o in outcomes],
    )

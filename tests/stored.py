"""Runs written into a store as a climb writes them, without a climb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimize.climb.observer import Attempt
from optimize.climb.verdict import Family
from optimize.commands.session import load_task_and_rows
from optimize.config import RunConfig
from optimize.data.rows import row_hash
from optimize.lm.usage import Usage
from optimize.program.program import Program, student
from optimize.program.retrieval import Neighbours
from optimize.report.rows import row_table
from optimize.scoring.evaluation import Evaluation, Outcome
from optimize.stats.intervals import paired_gain
from optimize.stats.records import RowScores, ScoreRecord
from optimize.store.write import Run
from tests.test_report import plateau


def stored_run(root: Path, name: str, right: int, **knobs: Any) -> str:
    """A finished run of the task: zero-shot, a better format, nearest demos that do not help, and a
    lever that was skipped. right: of ten rows, those that the program kept answers; the id.
    """
    config = {"lm": "openai/any", "seed": 0, "target": 0.9, **knobs}
    task, splits = load_task_and_rows(root, name, RunConfig())
    best, near = student(task), student(task)
    best.format = near.format = "compact"
    rows = tuple(dict(row) for row in splits.train[:9])
    near.neighbours = Neighbours(4, tuple(str(row) for row in rows), rows)
    steps: list[tuple[str, Family, Program, int, bool]] = [
        ("zero_shot", "baseline", student(task), 3, True),
        ("output_format", "format", best, right, True),
        ("nearest_demos", "demos", near, right - 1, False),
    ]
    before = None
    with Run(root, name, "run", config, splits) as tracked:
        for rung, family, program, some, promoted in steps:
            found = _right(program, splits.val, some)
            gain = paired_gain(before.scores, found.scores) if before else None
            used = Usage(asked=10, calls=10, tokens_in=900, tokens_out=40, latencies=(0.2,))
            attempt = Attempt(rung, family, program, found, gain, used, 1.0, promoted=promoted)
            tracked.finished(attempt)
            before = before or found
        tracked.finished(Attempt("passages", "retrieval", skipped="the task has no corpus.jsonl"))
        share = right / 10
        score = ScoreRecord(score=share, low=share - 0.1, high=min(1.0, share + 0.1), n=60)
        report = plateau(task=name, data_hash=splits.digest, target=config["target"])
        test = report.test.model_copy(update={"prompt": score})
        report = report.model_copy(update={"test": test})
        hashes = [row_hash(task, row) for row in splits.test]
        final = [float(n % 10 < right) for n in range(len(hashes))]
        scores = RowScores(rows=hashes, programs={"prompt": final, "final": final})
        tracked.settle(report, best, best)
        tracked.scores("test", scores)
        found = {"prompt": _right(best, splits.test, right)}
        tracked.answers(row_table(task, splits.train, splits.test, found))
        tracked.register(report, scores, best)
    return tracked.id


def _right(program: Program, rows: Any, some: int) -> Evaluation:
    """An evaluation in which the first `some` of ten rows are right."""
    outputs = program.task.signature.output_fields
    return Evaluation(
        tuple(
            Outcome(float(n % 10 < some), {name: row[name] for name in outputs})
            for n, row in enumerate(rows)
        )
    )

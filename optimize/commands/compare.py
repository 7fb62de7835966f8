"""Two runs of a task side by side, paired on the rows that both scored."""

from __future__ import annotations

from pathlib import Path

from optimize.errors import WorkbenchError
from optimize.report.record import Comparison, Side
from optimize.stats.intervals import known, mean_interval
from optimize.stats.judge import corrected
from optimize.stats.records import GainRecord, RowScores, ScoreRecord
from optimize.store.read import Found, find_run, judge_of


def compare(root: Path, before: str, after: str) -> Comparison:
    """The second run's final program over the first one's.

    Raises WorkbenchError where they are of different tasks.
    """
    runs = find_run(root, before), find_run(root, after)
    if runs[0].task != runs[1].task:
        raise WorkbenchError(
            f"{before} is a run of {runs[0].task!r}, {after} of {runs[1].task!r}: only runs of one "
            "task compare."
        )
    return Comparison(
        task=runs[0].task,
        before=before,
        after=after,
        lms=(runs[0].lm, runs[1].lm),
        val=side(*runs, "val"),
        test=side(*runs, "test"),
    )


def side(before: Found, after: Found, name: str) -> Side | None:
    """The final programs of two runs on the rows of val or test that both scored; None: on none."""
    scores = [run.read(f"{name}_scores.json", RowScores) for run in (before, after)]
    by_row = [dict(zip(s.rows, s.programs["final"], strict=True)) for s in scores]
    rows = [
        row
        for row, score in by_row[0].items()
        if score is not None and by_row[1].get(row) is not None
    ]
    if not rows:
        return None
    first, second = ([scored[row] for row in rows] for scored in by_row)
    judge = judge_of(before, after)
    means = (corrected(mean_interval(known(side)), judge) for side in (first, second))
    return Side(
        **dict(zip(("before", "after"), map(ScoreRecord.of, means), strict=True)),
        gain=GainRecord.between(first, second, judge),
    )

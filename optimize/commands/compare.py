"""Two runs of a task side by side, paired on the rows that both scored."""

from __future__ import annotations

from pathlib import Path

from optimize.errors import WorkbenchError
from optimize.stats.intervals import mean_interval
from optimize.stats.records import GainRecord, Record, RowScores, ScoreRecord
from optimize.store.read import Found, find_run


class Side(Record):
    """Scores of the two runs' final programs on the rows of one side that both scored."""

    before: ScoreRecord
    after: ScoreRecord
    gain: GainRecord


class Comparison(Record):
    """One task, two runs. A side is null where they share no scored row."""

    task: str
    before: str
    after: str
    val: Side | None
    test: Side | None


def compare(root: Path, before: str, after: str) -> Comparison:
    """The second run's final program over the first one's. Raises WorkbenchError where they are of different tasks."""
    runs = find_run(root, before), find_run(root, after)
    if runs[0].task != runs[1].task:
        raise WorkbenchError(f"{before} is a run of {runs[0].task!r}, {after} of {runs[1].task!r}: only runs of one task compare.")
    return Comparison(task=runs[0].task, before=before, after=after, val=_side(*runs, "val"), test=_side(*runs, "test"))


def told(found: Comparison) -> list[str]:
    """What the comparison says, a sentence a line."""
    out = []
    for name in ("val", "test"):
        side: Side | None = getattr(found, name)
        if side is None:
            out.append(f"On {name}: no row was scored by both runs; the rows have changed between them.")
            continue
        pair = f"{found.before} {side.before}, {found.after} {side.after}"
        out.append(f"On {side.gain.n} {name} rows that both scored: {pair}; {side.gain}; {side.gain.changed}.")
    if found.test:
        gain = found.test.gain
        surely = "surely better" if gain.low > 0 else "surely worse" if gain.high < 0 else "neither surely better nor worse"
        out.append(f"{found.after} is {surely} than {found.before} on test.")
    return out


def _side(before: Found, after: Found, name: str) -> Side | None:
    scores = [run.read(f"{name}_scores.json", RowScores) for run in (before, after)]
    by_row = [dict(zip(s.rows, s.programs["final"], strict=True)) for s in scores]
    rows = [row for row, score in by_row[0].items() if score is not None and by_row[1].get(row) is not None]
    if not rows:
        return None
    first, second = ([scored[row] for row in rows] for scored in by_row)
    means = (mean_interval([s for s in side if s is not None]) for side in (first, second))
    return Side(**dict(zip(("before", "after"), map(ScoreRecord.of, means), strict=True)), gain=GainRecord.between(first, second))

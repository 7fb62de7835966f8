"""Two programs of a task: what changed in the prompt, and which val rows that fixed and broke."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

from optimize.errors import WorkbenchError
from optimize.report.rungs import Changed, Difference, RowRecord
from optimize.stats.intervals import mean_interval
from optimize.stats.judge import corrected
from optimize.stats.records import GainRecord, ScoreRecord
from optimize.store.read import Found, judge_of
from optimize.store.rungs import RungRun, built_on, find_rung, rungs, split_rung

BASELINE = "zero_shot"
CONTEXT = 2  # lines of a prompt around a change


def diff(root: Path, first: str, second: str | None = None) -> Difference:
    """The second program over the first, each given as RUN or RUN~rung. With one alone: RUN's best
    program over its zero-shot one, RUN~rung over the rung that it was built on.

    Raises WorkbenchError where there is no such program, or the two are of different tasks.
    """
    run, after = find_rung(root, second or first)
    other, before = (run, _before(first, run, after)) if second is None else find_rung(root, first)
    if before.found.task != after.found.task:
        raise WorkbenchError(
            f"{first} is of task {before.found.task!r}, {second} of {after.found.task!r}: only "
            "programs of one task compare."
        )
    both = _paired(before.rows(), after.rows())
    scores = [(a.score, b.score) for a, b in both if a.score is not None and b.score is not None]
    sides, judge = list(zip(*scores, strict=True)), judge_of(other, run)
    means = [ScoreRecord.of(corrected(mean_interval(side), judge)) for side in sides]
    names = before.found.name, after.found.name
    changed = [_changed(a, b) for a, b in both if None not in (a.score, b.score)]
    changed.sort(key=lambda row: -row.gained)
    old, new = (one.text("prompt.txt").splitlines() for one in (before, after))
    return Difference(
        task=after.found.task,
        before=names[0],
        after=names[1],
        lms=(other.lm, run.lm),
        prompt=list(unified_diff(old, new, *names, lineterm="", n=CONTEXT)),
        val_before=means[0] if sides else None,
        val_after=means[1] if sides else None,
        gain=GainRecord.between(sides[0], sides[1], judge) if sides else None,
        fixed=[row for row in changed if row.gained > 0],
        broken=[row for row in sorted(changed, key=lambda row: row.gained) if row.gained < 0],
    )


def _before(name: str, run: Found, after: RungRun) -> RungRun:
    """What a program is held against where no other is named."""
    tried = rungs(run)
    if split_rung(name)[1]:
        return built_on(after.rung, tried)
    if (first := tried[0].rung) != BASELINE:
        raise WorkbenchError(
            f"Run {name!r} went on from an earlier climb: its first program is {first!r}, not "
            f"{BASELINE!r}. Name two: optimize diff RUN~rung {name} (`optimize runs "
            f"{run.task}` lists them)."
        )
    return tried[0]


def _paired(before: list[RowRecord], after: list[RowRecord]) -> list[tuple[RowRecord, RowRecord]]:
    """The rows that both were asked."""
    known = {row.row: row for row in before}
    return [(known[row.row], row) for row in after if row.row in known]


def _changed(before: RowRecord, after: RowRecord) -> Changed:
    assert before.score is not None and after.score is not None
    return Changed(
        row=after.row,
        inputs=after.inputs,
        gold=after.gold,
        before=before.answer,
        after=after.answer,
        score_before=before.score,
        score_after=after.score,
        feedback=after.feedback,
    )

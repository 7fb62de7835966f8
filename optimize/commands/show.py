"""A program of a run: its prompt as the LM gets it, its scores, its knobs."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.report.record import Report
from optimize.report.rungs import Shown
from optimize.stats.intervals import known, mean_interval
from optimize.stats.judge import corrected
from optimize.stats.records import ScoreRecord
from optimize.store.read import Found, judge_of
from optimize.store.rungs import find_rung


def show(root: Path, name: str) -> Shown:
    """The best program of RUN, or that of RUN~rung. Raises WorkbenchError where there is none."""
    run, rung = find_rung(root, name)
    scores = known([row.score for row in rung.rows()])
    return Shown(
        run=run.id,
        task=run.task,
        rung=rung.rung,
        prompt=rung.text("prompt.txt"),
        val=ScoreRecord.of(corrected(mean_interval(scores), judge_of(run))) if scores else None,
        test=_on_test(run, rung.rung),
        knobs=_knobs(json.loads(rung.text("program.json"))),
    )


def _on_test(run: Found, rung: str) -> ScoreRecord | None:
    """The rung's score on test, where it is one of the two that were asked."""
    with suppress(WorkbenchError):
        report: Report = run.read("report.json", Report)
        test, tuned = report.test, report.decision.tuned if report.decision else ""
        asked = {report.attempts[0].rung: test.zero_shot, tuned: test.tuned}
        return (asked | {report.numbers.rung: test.prompt}).get(rung)
    return None


def _knobs(saved: dict[str, Any]) -> dict[str, Any]:
    """What a saved program has beside its instructions, where it has any of it."""
    predictors = saved.get("predictors", {}).values()
    found = {
        "format": saved["format"],
        "demos": sum(len(p.get("demos", [])) for p in predictors if isinstance(p, dict)),
        "demos looked up": (saved["neighbours"] or {}).get("k"),
        "of rows": len((saved["neighbours"] or {}).get("rows", [])),
        "passages": (saved["passages"] or {}).get("k"),
        "guide": bool(saved.get("guide")),
        "reasoning": bool(saved.get("reasoning")),
        "votes": saved.get("votes"),
        "tuned": saved.get("tuned"),
        **(saved.get("lm") or {}),
    }
    return {name: value for name, value in found.items() if value}

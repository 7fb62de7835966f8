"""All runs of all tasks, newest first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from optimize.errors import WorkbenchError, did_you_mean
from optimize.report.record import Report
from optimize.report.runs import RunRecord, Runs
from optimize.stats.intervals import Interval
from optimize.stats.records import ScoreRecord
from optimize.store.listing import Listed, listed
from optimize.store.open import has_store
from optimize.task import task_names

STATUS: dict[str, Literal["finished", "running", "stopped", "failed"]] = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "stopped",
}


def all_runs(root: Path, task: str | None = None, limit: int = 0) -> Runs:
    """The runs of one task or of all, the newest so many; 0: all.

    Raises WorkbenchError for a task that has neither a run nor a file.
    """
    found = listed(root, task) if has_store(root) else []
    if task and not found and task not in (known := task_names(root)):
        near = did_you_mean(task, known) or f" Tasks: {', '.join(known) or 'none'}."
        raise WorkbenchError(f"No task {task!r} with a run.{near}")
    shown = found[:limit] if limit else found
    return Runs(runs=[_record(run) for run in shown], older=len(found) - len(shown))


def _record(run: Listed) -> RunRecord:
    return RunRecord(
        id=run.found.id,
        began=run.began,
        task=run.found.task,
        command=run.command,
        status=STATUS.get(run.status, "running"),
        verdict=run.verdict or run.outcome or None,
        **{
            "lm": run.params.get("lm", ""),
            "target": _number(run.params.get("target")),
            "minutes": None if run.seconds is None else round(run.seconds / 60, 2),
            **_measured(run),
            **_reported(run),
        },
    )


def _reported(run: Listed) -> dict[str, Any]:
    """What only the report knows; nothing where there is none, or an older version wrote it."""
    if run.verdict:
        with suppress(WorkbenchError):
            report: Report = run.found.read("report.json", Report)
            return {
                "score": report.final,
                "target": report.target,
                "target_met": report.target_met,
                "lm": report.lm,
                "lm_calls": report.lm_calls,
                "cost_usd": report.cost_usd,
                "minutes": round(report.seconds / 60, 2),
            }
    return {}


def _measured(run: Listed) -> dict[str, Any]:
    """Of a run that makes no program: what its metrics say."""
    if not run.outcome:
        return {}
    known = run.metrics
    found: dict[str, Any] = {"cost_usd": known.get("used_usd")}
    if "used_calls" in known:
        found["lm_calls"] = int(known["used_calls"])
    if "score" in known:
        low, high, n = (known[f"score_{name}"] for name in ("low", "high", "rows"))
        found["score"] = ScoreRecord.of(Interval(known["score"], low, high, int(n)))
    return found


def _number(text: str | None) -> float | None:
    with suppress(ValueError, TypeError):
        return float(text)  # type: ignore[arg-type]
    return None

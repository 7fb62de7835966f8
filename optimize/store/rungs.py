"""The rungs of a run: each one's prompt and program, and what became of each val row."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError, did_you_mean
from optimize.report.record import Report
from optimize.report.rungs import RowRecord
from optimize.store.read import Found, NoRun, find_run
from optimize.store.table import GOLD, INPUT
from optimize.store.tags import PARENT


@dataclass(frozen=True)
class RungRun:
    """A rung of a run: its nested run. promoted: the rungs after it were built on it. why: it made
    no program.
    """

    found: Found
    rung: str
    promoted: bool
    why: str = ""

    def text(self, name: str) -> str:
        """A file it keeps. Raises WorkbenchError where it made no program."""
        if self.why:
            raise WorkbenchError(f"{self.found.name} made no program: {self.why}.")
        return self.found.text(name)

    def rows(self) -> list[RowRecord]:
        """What became of each val row, in devset order; of a race stopped early, the first ones."""
        table = json.loads(self.text("examples.json"))
        columns: list[str] = table["columns"]
        first = next(n for n, name in enumerate(columns) if name.startswith(GOLD))
        return [
            _row(dict(zip(columns, row, strict=True)), columns[:first]) for row in table["data"]
        ]


def _row(cells: dict[str, Any], inputs: list[str]) -> RowRecord:
    answer = cells["answer"]
    with suppress(ValueError, TypeError):
        answer = json.loads(answer)
    return RowRecord(
        row=cells["row"],
        inputs={name.removeprefix(INPUT): str(cells[name]) for name in inputs},
        gold={n.removeprefix(GOLD): str(v) for n, v in cells.items() if n.startswith(GOLD)},
        answer=answer if isinstance(answer, dict) else {"answer": answer},
        score=cells["score"],
        feedback=cells["feedback"] or "",
        error=cells["error"] or "",
        cut=cells.get("cut") or 0,  # older runs have none
    )


def split_rung(name: str) -> tuple[str, str]:
    """RUN and rung of RUN~rung; no rung where what follows the last ~ is a number, as in TASK~1."""
    run, tilde, last = name.rpartition("~")
    return (run, last) if tilde and not last.isdecimal() else (name, "")


def rungs(run: Found) -> list[RungRun]:
    """The rungs of a run in the order in which they were tried."""
    nested = run.store.search_runs(
        [run.store.get_run(run.id).info.experiment_id],
        f"tags.`{PARENT}` = '{run.id}' and params.rung != ''",
        order_by=["attributes.end_time ASC"],
    )
    return [_rung(run, one) for one in nested]


def _rung(run: Found, nested: Any) -> RungRun:
    rung, tags = nested.data.params["rung"], nested.data.tags
    return RungRun(
        Found(run.store, nested.info.run_id, run.task, f"{run.name}~{rung}"),
        rung,
        tags.get("promoted") == "True",
        tags.get("skipped") or tags.get("error") or "",
    )


def find_rung(root: Path, name: str) -> tuple[Found, RungRun]:
    """RUN~rung, or RUN for the rung that made its best program; and the run it belongs to.

    Raises WorkbenchError, with the nearest name, where there is none.
    """
    named, rung = split_rung(name)
    run = find_run(root, named)
    tried = rungs(run)
    wanted = rung or best_rung(run, tried)
    if fitting := [one for one in tried if one.rung == wanted]:
        return run, fitting[-1]
    if not rung:
        raise WorkbenchError(
            f"Run {named!r} went on from an earlier climb, which keeps its best prompt program, "
            f"{wanted!r}: `optimize runs {run.task}` lists it."
        )
    known = [one.rung for one in tried]
    near = did_you_mean(rung, known) or f" Its rungs: {', '.join(known) or 'none'}."
    raise WorkbenchError(f"Run {named!r} has no rung {rung!r}.{near}")


def best_rung(run: Found, tried: list[RungRun]) -> str:
    """The rung that made the run's best program; of a run that was stopped, the last one that
    others built on.
    """
    with suppress(WorkbenchError):
        report: Report = run.read("report.json", Report)
        kept = report.decision and report.decision.accepted
        return report.decision.tuned if report.decision and kept else report.numbers.rung
    promoted = [one.rung for one in tried if one.promoted]
    if not promoted:
        raise NoRun(f"Run {run.name!r} was stopped before it had scored a program.")
    return promoted[-1]


def built_on(rung: str, tried: list[RungRun]) -> RungRun:
    """What a rung was tried on: the last one before it that was promoted.

    Raises WorkbenchError for the first one of a run.
    """
    at = next(n for n, one in enumerate(tried) if one.rung == rung)
    before = [one for one in tried[:at] if one.promoted]
    if not before:
        raise WorkbenchError(f"{rung!r} is the first of its run: there is nothing before it.")
    return before[-1]

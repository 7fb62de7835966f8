"""A run's verdict drawn again from what the MLflow store keeps of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from optimize.climb.verdict import History, confirmed, decide, without_headroom
from optimize.errors import WorkbenchError
from optimize.report.record import Report, VerdictRecord
from optimize.report.verdicts import verdict_sentences
from optimize.stats.records import Record
from optimize.store.read import HISTORY, find_run

# not in a history
SAID = {"untried", "left", "left_out", "climbs", "on_test", "test_reads", "test_rows_needed"}


class Redrawn(Record):
    run: str
    verdict: str
    reason: str
    numbers: VerdictRecord


def redraw(root: Path, run: str) -> Redrawn:
    """The verdict on the scores that the run left, by today's rule.

    Raises WorkbenchError where there is no such run.
    """
    found = find_run(root, run)
    history: History = found.read(HISTORY, History)
    decision, said, room = decide(history), dict[str, Any](), None
    with suppress(WorkbenchError):  # a run that was stopped has no report
        report: Report = found.read("report.json", Report)
        room, numbers = report.headroom, report.numbers
        said = numbers.model_dump(include=SAID)
        if room:
            decision = without_headroom(decision, room.ceilings, history.target)
        decision = confirmed(decision, numbers.on_test, numbers.test_reads)
    numbers = VerdictRecord.of(decision, history, **said)
    reason = verdict_sentences(decision.verdict, history.target, numbers, room)
    return Redrawn(run=found.id, verdict=decision.verdict, reason=reason, numbers=numbers)

"""A run's verdict drawn again from what the MLflow store keeps of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from optimize.climb.verdict import Decision, History, confirmed, decide
from optimize.errors import WorkbenchError
from optimize.report.record import Report, VerdictRecord
from optimize.report.sentences import verdict_sentences
from optimize.stats.records import Record
from optimize.store.read import HISTORY, Found, find_run


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
    decision, said = _in_the_light_of_test(found, decide(history))
    numbers = VerdictRecord.of(decision, history, **said)
    reason = verdict_sentences(decision.verdict, history.target, numbers)
    return Redrawn(run=found.id, verdict=decision.verdict, reason=reason, numbers=numbers)


def _in_the_light_of_test(run: Found, decision: Decision) -> tuple[Decision, dict[str, Any]]:
    """As the run's own report reads the test rows, where it got that far; and what it says of
    them.
    """
    with suppress(WorkbenchError):
        numbers = run.read("report.json", Report).numbers
        said = numbers.model_dump(include={"on_test", "test_reads", "climbs"})
        if numbers.on_test is not None:
            return confirmed(decision, numbers.on_test, numbers.test_reads), said
    return decision, {}

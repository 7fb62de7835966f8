"""A run's verdict drawn again from what the MLflow store keeps of it."""

from __future__ import annotations

from pathlib import Path

from optimize.climb.verdict import History, decide
from optimize.report.record import VerdictRecord
from optimize.report.sentences import verdict_sentences
from optimize.stats.records import Record
from optimize.store.read import find_run
from optimize.store.write import HISTORY


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
    decision = decide(history)
    numbers = VerdictRecord.of(decision, history)
    reason = verdict_sentences(decision.verdict, history.target, numbers)
    return Redrawn(run=found.id, verdict=decision.verdict, reason=reason, numbers=numbers)

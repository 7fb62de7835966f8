"""Gold answers through the metric and through every prompt format and back, before an LM is asked.

A bug in a metric, or an answer that a format cannot carry, would else be charged to a lever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dspy

from optimize.climb.findings import Finding, listed, row_places
from optimize.data.excerpts import shown, shown_output
from optimize.data.gold import Unscorable, scores_alone
from optimize.data.rows import Splits, row_hash
from optimize.files import to_json, to_text
from optimize.program.formats import FORMATS
from optimize.task import Score, Task

SHORT = "gold answers that the metric scores below 1"
TOP = "gold answers score at best what the metric gives them here, below 1"
UNSCORED = "gold answers not put through the metric"
LOST = "gold answers that a prompt format does not give back as they are"
Rows = Sequence[tuple[dspy.Example, dict[str, Any]]]


def gold_findings(task: Task, splits: Splits) -> list[Finding]:
    """Raises UserCodeError where the metric fails on a row."""
    names = list(task.signature.output_fields)
    rows = [(e, {n: e[n] for n in names}) for side in splits.sides().values() for e in side]
    places = row_places(task, splits)
    found = [_scored(task, rows, places), listed(LOST, list(_lost(task, rows, places)))]
    return [finding for finding in found if finding.count]


def _scored(task: Task, rows: Rows, places: dict[str, str]) -> Finding:
    """A gold answer scores 1. Where none does, the metric's top lies lower by design (it pays for
    brevity, say), which is a problem only where the target is above what gold answers score.
    """
    try:
        scores = scores_alone(task, [row for row, _ in rows], [gold for _, gold in rows])
    except Unscorable as reason:
        why = f"the metric {reason}, so its bugs show only in the run"
        return Finding(what=UNSCORED, count=len(rows), examples=[why])
    short = [(row, score) for (row, _), score in zip(rows, scores, strict=True) if score.value < 1]
    said = [_short(task, row, score, places) for row, score in short]
    if len(short) < len(rows):
        return listed(SHORT, said, problem=True)
    return listed(TOP, said, problem=sum(s.value for s in scores) / len(scores) < task.target)


def _short(task: Task, row: dspy.Example, score: Score, places: dict[str, str]) -> str:
    why = f" ({score.feedback})" if score.feedback else ""
    return f"{places.get(row_hash(task, row), 'a row')} scores {score.value:.2f}{why}: " + shown(
        task, row
    )


def _lost(task: Task, rows: Rows, places: dict[str, str]) -> Iterator[str]:
    """Answers that are other ones, or none, after being shown as a demo and read back."""
    seen: set[str] = set()
    for row, gold in rows:
        if (key := to_json(gold)) in seen:
            continue
        seen.add(key)
        for name, adapter in FORMATS.items():
            if name == "terse":  # answers as the compact format does
                continue
            try:
                text = adapter.format_assistant_message_content(task.signature, gold)
                back = adapter.parse(task.signature, text)
            except dspy.AdapterParseError:
                back = None
            if back != gold:
                became = shown_output(task, back) if back else "unreadable"
                where = places.get(row_hash(task, row), "a row")
                yield f"{name}: {where} {shown_output(task, gold)} becomes {to_text(became)}"

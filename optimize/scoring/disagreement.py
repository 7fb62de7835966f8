"""How far apart several programs' answers to one row are. Asks no LM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import dspy

from optimize.data.gold import Unscorable, scores_alone
from optimize.data.split import folded
from optimize.errors import UserCodeError
from optimize.files import to_text
from optimize.scoring.evaluation import UNPARSABLE, Outcome
from optimize.task import Task

Outputs = Mapping[str, Any]


def told(task: Task, outcome: Outcome) -> dict[str, Any] | None:
    """The outputs of an answer; None where its call failed or it could not be read."""
    names = task.signature.output_fields.keys()
    if outcome.score is None or outcome.error == UNPARSABLE or not names <= outcome.answer.keys():
        return None
    return {name: outcome.answer[name] for name in names}


def disagreement(
    task: Task, row: Mapping[str, Any], answers: Sequence[Outputs | None]
) -> float | None:
    """From 0, all answers are the same, to 1; None where fewer than two can be read.

    One less the mean likeness of two of them. Query by committee (Seung, Opper & Sompolinsky 1992);
    of three programs' labels it orders rows as vote entropy does (Dagan & Engelson 1995).
    """
    given = [answer for answer in answers if answer is not None]
    pairs = list(combinations(given, 2))
    return 1 - fmean(likeness(task, row, *pair) for pair in pairs) if pairs else None


def likeness(task: Task, row: Mapping[str, Any], gold: Outputs, answer: Outputs) -> float:
    """0…1: for labels whether they are the same, else the metric's score of one answer with the
    other as gold; where the metric cannot tell (it asks an LM, or reads columns that the row
    lacks), or a judge does that, whether both are the same text.
    """
    names = list(task.signature.output_fields)
    same = all(folded(to_text(gold[n])) == folded(to_text(answer[n])) for n in names)
    if same or task.label or task.judge:
        return float(same)
    example = dspy.Example(**{**row, **gold}).with_inputs(*task.signature.input_fields)
    try:
        return scores_alone(task, [example], [answer])[0].value
    except (Unscorable, UserCodeError):
        return 0.0

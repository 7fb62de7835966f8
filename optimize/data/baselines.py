"""What a task scores without an LM: majority class, nearest neighbour, logistic regression. Knows
no LM, no program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from optimize.data.gold import Unscorable, scores_alone
from optimize.data.labels import classifier
from optimize.data.rows import input_text
from optimize.files import to_json
from optimize.stats.intervals import Interval, mean_interval
from optimize.task import Task

MAJORITY, NEAREST = "majority class", "nearest neighbour"
REGRESSION = "TF-IDF + logistic regression"
Outputs = dict[str, Any]


def baseline_scores(
    task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]
) -> dict[str, Interval]:
    """The score of each baseline on the rows, by the metric; none where the metric asks an LM, or
    reads what only the program gives.
    """
    try:
        return {
            name: mean_interval([s.value for s in scores_alone(task, rows, found)])
            for name, found in baseline_answers(task, train, rows).items()
        }
    except Unscorable:
        return {}


def baseline_answers(
    task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]
) -> dict[str, list[Outputs]]:
    """Each baseline's outputs for each row, learnt from train.

    Where the output is no label, the nearest neighbour alone: the outputs of the train row whose
    inputs are most like the row's.
    """
    names = list(task.signature.output_fields)
    outputs = [{name: e[name] for name in names} for e in train]
    texts, asked = ([input_text(task, e) for e in side] for side in (train, rows))
    nearest = {NEAREST: [outputs[n] for n in _nearest(texts, asked)]}
    if not task.label:
        return nearest
    known = {to_json(found): found for found in outputs}
    if len(known) == 1:
        return {name: outputs[:1] * len(rows) for name in (MAJORITY, NEAREST, REGRESSION)}
    labels = list(map(to_json, outputs))
    guessed = classifier().fit(texts, labels).predict(asked)
    most = known[max(sorted(known), key=labels.count)]
    return {MAJORITY: [most] * len(rows), **nearest, REGRESSION: [known[str(g)] for g in guessed]}


def _nearest(texts: Sequence[str], asked: Sequence[str]) -> list[int]:
    """The number of the text most like each one asked."""
    from sklearn.neighbors import NearestNeighbors

    from optimize.data.words import Words

    vectorizer = Words()
    index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectorizer.fit_transform(texts))
    found = index.kneighbors(vectorizer.transform(asked), return_distance=False)
    return [int(number) for (number,) in found]

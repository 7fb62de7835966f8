"""What a task scores without an LM: majority class, nearest neighbour, logistic regression. Knows
no LM, no program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dspy

from optimize.data.gold import Unscorable, scores_alone
from optimize.data.labels import classifier
from optimize.data.rows import input_text
from optimize.files import to_json
from optimize.stats.intervals import Interval, mean_interval
from optimize.task import Task

MAJORITY, NEAREST = "majority class", "nearest neighbour"
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
    known = {to_json(found): found for found in outputs}
    texts, labels = [input_text(task, e) for e in train], list(map(to_json, outputs))
    asked = [input_text(task, e) for e in rows]
    makers = BASELINES if task.label else {NEAREST: BASELINES[NEAREST]}
    if len(known) == 1:
        return {name: outputs[:1] * len(rows) for name in makers}
    return {
        name: [known[str(g)] for g in make().fit(texts, labels).predict(asked)]
        for name, make in makers.items()
    }


def _majority() -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="most_frequent")


def _nearest() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        KNeighborsClassifier(1, metric="cosine"),
    )


BASELINES: dict[str, Callable[[], Any]] = {
    MAJORITY: _majority,
    NEAREST: _nearest,
    "TF-IDF + logistic regression": classifier,
}

"""What a label costs without an LM: majority class, nearest neighbour, logistic regression. Knows
no LM, no program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dspy

from optimize.data.labels import classifier
from optimize.data.rows import input_text
from optimize.files import to_json
from optimize.stats.intervals import Interval, mean_interval
from optimize.task import Task

MAJORITY = "majority class"


def baseline_scores(
    task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]
) -> dict[str, Interval]:
    """The score of each reference on the rows, by the metric;

    none where the task's output is no label.
    """
    if not (label := task.label):
        return {}

    def score(row: dspy.Example, guess: Any) -> float:
        return task.score(row, dspy.Prediction(**{label: guess})).value

    return {
        name: mean_interval(list(map(score, rows, found)))
        for name, found in baseline_answers(task, train, rows).items()
    }


def baseline_answers(
    task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]
) -> dict[str, list[Any]]:
    """Each reference's label for each row, learnt from train;

    none where the task's output is no label.
    """
    if not task.label:
        return {}
    known = {to_json(e[task.label]): e[task.label] for e in train}
    texts, labels = [input_text(task, e) for e in train], [to_json(e[task.label]) for e in train]
    asked = [input_text(task, e) for e in rows]
    if len(known) == 1:
        return {name: [known[labels[0]]] * len(rows) for name in BASELINES}
    return {
        name: [known[str(g)] for g in make().fit(texts, labels).predict(asked)]
        for name, make in BASELINES.items()
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
    "nearest neighbour": _nearest,
    "TF-IDF + logistic regression": classifier,
}

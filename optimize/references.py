"""What a label costs without an LM: majority class, nearest neighbour, logistic regression. Knows no LM, no program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dspy

from optimize.devset import input_text
from optimize.files import to_json
from optimize.labels import classifier
from optimize.stats import Interval, mean_interval
from optimize.task import Task


def references(task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]) -> dict[str, Interval]:
    """The score of each reference on the rows, learnt from train, scored by the metric; none where the task's output is no label."""
    if not task.label:
        return {}
    known = {to_json(e[task.label]): e[task.label] for e in train}
    texts, labels = [input_text(task, e) for e in train], [to_json(e[task.label]) for e in train]
    asked = [input_text(task, e) for e in rows]
    found = {}
    for name, make in _REFERENCES.items():
        guesses = make().fit(texts, labels).predict(asked) if len(known) > 1 else labels[:1] * len(rows)
        scores = [task.score(e, dspy.Prediction(**{task.label: known[str(g)]})).value for e, g in zip(rows, guesses, strict=True)]
        found[name] = mean_interval(scores)
    return found


def _majority() -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="most_frequent")


def _nearest() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), KNeighborsClassifier(1, metric="cosine"))


_REFERENCES: dict[str, Callable[[], Any]] = {
    "majority class": _majority,
    "nearest row's label": _nearest,
    "logistic regression": classifier,
}

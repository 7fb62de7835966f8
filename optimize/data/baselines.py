"""What a task scores without an LM: the same answer to every row, that of the nearest row, logistic
regression. Knows no LM, no program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from optimize.data.gold import Unscorable, scores_alone
from optimize.data.labels import classifier
from optimize.data.rows import input_text
from optimize.files import to_json
from optimize.task import Task

CONSTANT, NEAREST = "same answer to every row", "nearest neighbour"
REGRESSION = "TF-IDF + logistic regression"
FOLDS = 5
MOST_ROWS = 2000  # of which a cross-validation takes no longer than some seconds
# answers tried as the constant one, on so many rows
CANDIDATES, TRIED_ON = 12, 40
MOST_VALUES = 0.25  # of the rows: a field with more different values is no label
Outputs = dict[str, Any]


def cross_validated(
    task: Task, rows: Sequence[dspy.Example], groups: Sequence[int]
) -> dict[str, list[float | None]]:
    """The score of each baseline on each of the labelled rows, learnt from the other rows; rows of
    one group (nearly equal ones) stay together.

    None for rows beyond MOST_ROWS. Nothing where the metric asks an LM, or reads what only the
    program gives.
    """
    from sklearn.model_selection import GroupKFold

    used, groups = rows[:MOST_ROWS], groups[:MOST_ROWS]
    folds = min(FOLDS, len(set(groups)))
    found: dict[str, list[float | None]] = {}
    for train, held in GroupKFold(folds).split(used, groups=groups) if folds > 1 else ():
        learnt, asked = [used[n] for n in train], [used[n] for n in held]
        for name, scores in baseline_scores(task, learnt, asked).items():
            row = found.setdefault(name, [None] * len(rows))
            for number, score in zip(held, scores, strict=True):
                row[number] = score
    return found


def baseline_scores(
    task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]
) -> dict[str, list[float]]:
    """The score of each baseline on the rows, by the metric; none where the metric asks an LM, or
    reads what only the program gives.
    """
    try:
        return {
            name: [s.value for s in scores_alone(task, rows, found)]
            for name, found in baseline_answers(task, train, rows).items()
        }
    except Unscorable:
        return {}


def baseline_answers(
    task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]
) -> dict[str, list[Outputs]]:
    """Each baseline's outputs for each row, learnt from train.

    Raises Unscorable where the metric cannot tell which answer is the best constant one.
    """
    names = list(task.signature.output_fields)
    outputs = [{name: e[name] for name in names} for e in train]
    texts, asked = ([input_text(task, e) for e in side] for side in (train, rows))
    near = [outputs[n] for n in _nearest(texts, asked)]
    found = {CONSTANT: [_constant(task, train, outputs)] * len(rows), NEAREST: near}
    guessed = {
        name: column
        for name in names
        if (column := _classified(texts, [o[name] for o in outputs], asked))
    }
    if not guessed:
        return found
    fields = [{n: guessed[n][row] for n in guessed} for row in range(len(rows))]
    return found | {REGRESSION: [o | f for o, f in zip(near, fields, strict=True)]}


def _constant(task: Task, train: Sequence[dspy.Example], outputs: Sequence[Outputs]) -> Outputs:
    """The one answer that scores best on train rows, where it is given to all of them."""
    known = {to_json(found): found for found in outputs}
    counts = Counter(map(to_json, outputs))
    common = sorted(counts, key=lambda text: (-counts[text], text))
    if task.label:
        return known[common[0]]
    some = train[:TRIED_ON]

    def score(text: str) -> float:
        return sum(s.value for s in scores_alone(task, some, [known[text]] * len(some)))

    return known[max(common[:CANDIDATES], key=score)]


def _classified(texts: Sequence[str], values: Sequence[Any], asked: Sequence[str]) -> list[Any]:
    """What logistic regression says of one output field, for each text asked; empty where its
    values are no labels.
    """
    known: Mapping[str, Any] = {to_json(value): value for value in values}
    if len(known) > max(2, MOST_VALUES * len(values)):
        return []
    if len(known) == 1:
        return [values[0]] * len(asked)
    guessed = classifier().fit(texts, list(map(to_json, values))).predict(asked)
    return [known[str(g)] for g in guessed]


def _nearest(texts: Sequence[str], asked: Sequence[str]) -> list[int]:
    """The number of the text most like each one asked."""
    from sklearn.neighbors import NearestNeighbors

    from optimize.data.words import Words

    vectorizer = Words()
    index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectorizer.fit_transform(texts))
    found = index.kneighbors(vectorizer.transform(asked), return_distance=False)
    return [int(number) for (number,) in found]

"""What a task scores without an LM: the same answer to every row, that of the nearest row, logistic
regression; the last two by words, and by vectors where there is an embedder. Knows no LM, no
program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

from optimize.data.gold import Unscorable, scores_alone
from optimize.data.inputs import input_text
from optimize.data.labels import classifier
from optimize.files import to_json
from optimize.task import Task

CONSTANT, NEAREST = "same answer to every row", "nearest neighbour"
REGRESSION = "TF-IDF + logistic regression"
NEAREST_MEANING = "nearest neighbour by embedder"
REGRESSION_MEANING = "embedder + logistic regression"
FOLDS = 5
MOST_ROWS = 2000  # of which a cross-validation takes no longer than some seconds
# answers tried as the constant one, on so many rows
CANDIDATES, TRIED_ON = 12, 40
MOST_VALUES = 0.25  # of the rows: a field with more different values is no label
Outputs = dict[str, Any]
# (len(texts), size): what an embedder makes of texts
Vectors = Callable[[Sequence[str]], Any]


def cross_validated(
    task: Task,
    rows: Sequence[dspy.Example],
    groups: Sequence[int],
    vectors: Vectors | None = None,
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
        for name, scores in baseline_scores(task, learnt, asked, vectors).items():
            row = found.setdefault(name, [None] * len(rows))
            for number, score in zip(held, scores, strict=True):
                row[number] = score
    return found


def baseline_scores(
    task: Task,
    train: Sequence[dspy.Example],
    rows: Sequence[dspy.Example],
    vectors: Vectors | None = None,
) -> dict[str, list[float]]:
    """The score of each baseline on the rows, by the metric; none where the metric asks an LM, or
    reads what only the program gives.
    """
    try:
        return {
            name: [s.value for s in scores_alone(task, rows, found)]
            for name, found in baseline_answers(task, train, rows, vectors).items()
        }
    except Unscorable:
        return {}


def baseline_answers(
    task: Task,
    train: Sequence[dspy.Example],
    rows: Sequence[dspy.Example],
    vectors: Vectors | None = None,
) -> dict[str, list[Outputs]]:
    """Each baseline's outputs for each row, learnt from train.

    Raises Unscorable where the metric cannot tell which answer is the best constant one.
    """
    names = list(task.signature.output_fields)
    outputs = [{name: e[name] for name in names} for e in train]
    texts, asked = ([input_text(task, e) for e in side] for side in (train, rows))
    found = {CONSTANT: [_constant(task, train, outputs)] * len(rows)}
    both: Any = texts, asked  # the classifier of words has a vocabulary of its own
    ways = [(NEAREST, _in_words(texts, asked), REGRESSION, both, classifier())]
    if vectors:
        both = vectors(texts), vectors(asked)
        ways.append((NEAREST_MEANING, both, REGRESSION_MEANING, both, _of_vectors()))
    for nearest, sides, regression, seen, model in ways:
        found[nearest] = near = [outputs[n] for n in _nearest(*sides)]
        guessed = {n: c for n in names if (c := _classified(model, seen, [o[n] for o in outputs]))}
        if guessed:
            fields = [{n: guessed[n][row] for n in guessed} for row in range(len(rows))]
            found[regression] = [o | f for o, f in zip(near, fields, strict=True)]
    return found


def _constant(task: Task, train: Sequence[dspy.Example], outputs: Sequence[Outputs]) -> Outputs:
    """The one answer that scores best on train rows, where it is given to all of them."""
    texts = list(map(to_json, outputs))
    known, counts = dict(zip(texts, outputs, strict=True)), Counter(texts)
    common = sorted(counts, key=lambda text: (-counts[text], text))
    some, weights = list(train[:TRIED_ON]), [1] * len(train[:TRIED_ON])
    if task.label:  # of the rows with each label, one stands for all
        first = dict(zip(reversed(texts), reversed(train), strict=True))
        some, weights = [first[t] for t in common], [counts[t] for t in common]

    def score(text: str) -> float:
        found = scores_alone(task, some, [known[text]] * len(some))
        return sum(weight * s.value for weight, s in zip(weights, found, strict=True))

    try:
        return known[max(common[:CANDIDATES], key=score)]
    except Unscorable:
        if task.label:
            return known[common[0]]
        raise


def _classified(model: Any, seen: tuple[Any, Any], values: Sequence[Any]) -> list[Any]:
    """What logistic regression says of one output field, for each row asked; empty where its values
    are no labels. seen: what the model sees of the rows it learns from, and of those asked.
    """
    known_rows, asked = seen
    known: Mapping[str, Any] = {to_json(value): value for value in values}
    if len(known) > max(2, MOST_VALUES * len(values)):
        return []
    if len(known) == 1:
        return [values[0]] * len(asked)
    guessed = model.fit(known_rows, list(map(to_json, values))).predict(asked)
    return [known[str(g)] for g in guessed]


def _nearest(known: Any, asked: Any) -> list[int]:
    """The number of the row most like each one asked."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(known)
    return [int(number) for (number,) in index.kneighbors(asked, return_distance=False)]


def _in_words(texts: Sequence[str], asked: Sequence[str]) -> tuple[Any, Any]:
    from optimize.data.words import Words

    vectorizer = Words()
    return vectorizer.fit_transform(texts), vectorizer.transform(asked)


def _of_vectors() -> Any:
    from sklearn.linear_model import LogisticRegression

    # vectors of length 1 need less shrinkage than counts of words do
    return LogisticRegression(C=10.0, max_iter=2000)

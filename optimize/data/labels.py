"""Are the labels themselves sound?

Duplicates, contradictions, possible_label_errors and how far annotators agree. Knows no LM.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from optimize.data.split import Inputs, connected, folded
from optimize.stats.intervals import Interval, wilson

FOLDS = 5
RELIABLE = 0.65
NEIGHBOURS = 5  # of which all must carry another label than a doubted row's
LEAST_TOLD = 0.25  # of the way from the commonest label's share to all rows right
LEAST_CLASSES = 4  # below which a label far down a ranking is not told from the second best


@dataclass(frozen=True)
class Duplicates:
    """Groups of row numbers. same: one input, one label, written more than once. conflicts: one
    input, several labels.

    near: almost the same input with several labels, which may be right. leaks: pairs of rows on two
    sides with almost the same input.
    """

    same: tuple[tuple[int, ...], ...]
    conflicts: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]
    leaks: tuple[tuple[int, ...], ...]


def duplicates(
    inputs: Sequence[Inputs], labels: Sequence[str], sides: Sequence[str], alike: Any
) -> Duplicates:
    """Rows whose inputs are equal but for case and white space, and nearly equal ones.

    alike: optimize.data.split.near_graph of the rows.
    """
    from scipy.sparse import triu

    exact: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, texts in enumerate(inputs):
        exact[tuple(map(folded, texts))].append(row)
    groups: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(connected(alike)):
        groups[group].append(row)
    repeated = [tuple(rows) for rows in exact.values() if len(rows) > 1]
    conflicts = [rows for rows in repeated if _disagree(rows, labels)]
    told = {row for rows in conflicts for row in rows}
    near = [
        tuple(rows) for rows in groups.values() if _disagree(rows, labels) and not told & set(rows)
    ]
    pairs = triu(alike, k=1).tocoo()
    leaks = sorted(
        (int(one), int(other))
        for one, other in zip(pairs.row, pairs.col, strict=True)
        if sides[one] != sides[other]
    )
    return Duplicates(
        tuple(rows for rows in repeated if not _disagree(rows, labels)),
        tuple(conflicts),
        tuple(near),
        tuple(leaks),
    )


@dataclass(frozen=True)
class Judged:
    """What the other rows say of each row's label.

    names: the classes. y: each row's own, as a number. chance: rows × classes.
    """

    texts: tuple[str, ...]
    names: Any
    y: Any
    chance: Any


def judge(texts: Sequence[str], labels: Sequence[str]) -> Judged | None:
    """Cross-validated TF-IDF + logistic regression on the rows; None where a class has too few of
    them to judge one by.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    names, y = np.unique(labels, return_inverse=True)
    if len(names) < 2 or min(np.bincount(y)) < 2 or len(y) < 4 * len(names):
        return None
    folds = StratifiedKFold(min(FOLDS, int(min(np.bincount(y)))), shuffle=True, random_state=0)
    return Judged(
        tuple(texts),
        names,
        y,
        cross_val_predict(classifier(), list(texts), y, cv=folds, method="predict_proba"),
    )


def random_share(judged: Judged) -> Interval | None:
    """An estimate, some 5 to 12 points high, of the share of labels drawn at random; None below
    LEAST_CLASSES classes, or where texts say too little about labels: what words cannot tell looks
    random, however right it is.

    A label drawn at random is as likely the last as the second in its row's ranking of the classes;
    a right one on a hard row is seldom in the lower half. So the rows whose label is there, scaled
    up, are counted. docs/results.md has what that finds.
    """
    import numpy as np

    classes = len(judged.names)
    common = np.bincount(judged.y).max() / len(judged.y)
    right = (judged.chance.argmax(axis=1) == judged.y).mean()
    if classes < LEAST_CLASSES or right - common < LEAST_TOLD * (1 - common):
        return None
    rank = (judged.chance > judged.chance[np.arange(len(judged.y)), judged.y][:, None]).sum(axis=1)
    upper = (classes + 1) // 2
    low, scale = wilson(float((rank >= upper).mean()), len(rank)), (classes - 1) / (classes - upper)
    return Interval(
        min(1.0, scale * low.mean), min(1.0, scale * low.low), min(1.0, scale * low.high), low.n
    )


def possible_label_errors(judged: Judged) -> list[tuple[int, str]]:
    """(row, the label that others suggest) for rows that look mislabelled, the most striking first:
    a list to look at.

    Confident learning (Northcutt et al., 2021): the row is predicted to be of another class with at
    least the probability that this class's own rows have on average. And none of its nearest
    neighbours carries its label, so that a classifier's blind spot alone accuses nobody. Where
    texts say too little about labels for the classifier to be right on RELIABLE of the rows, none
    is accused.
    """
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    names, y, chance = judged.names, judged.y, judged.chance
    own = np.array([chance[y == k, k].mean() for k in range(len(names))])
    guess = chance.argmax(axis=1)
    if (guess == y).mean() < RELIABLE:
        return []
    vectors = classifier()[:-1].fit_transform(list(judged.texts))
    count = min(NEIGHBOURS, len(y) - 1)
    near = (
        NearestNeighbors(n_neighbors=count, metric="cosine")
        .fit(vectors)
        .kneighbors(return_distance=False)
    )
    alone = (y[near] != y[:, None]).all(axis=1)
    rows = np.flatnonzero((guess != y) & (chance[np.arange(len(y)), guess] >= own[guess]) & alone)
    margin = chance[rows, guess[rows]] - chance[rows, y[rows]]
    return [(int(rows[n]), str(names[guess[rows[n]]])) for n in np.argsort(-margin, kind="stable")]


def classifier() -> Any:
    """TF-IDF of words and letters with logistic regression: what a text says without an LM."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline, make_union

    from optimize.data.words import Letters, Words

    words = Words()
    letters = Letters(ngram_range=(2, 4), sublinear_tf=True)
    # fast where words outnumber rows
    regression = LogisticRegression(C=10, solver="liblinear", dual=True, max_iter=1000)
    return make_pipeline(make_union(words, letters), OneVsRestClassifier(regression))


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree. alpha: Krippendorff's, 1 perfect, 0 chance. rows: those with two
    labels or more.

    person: how often one annotator gives the label that most of the others gave: what a program
    that is as good as a person scores against such labels.
    """

    alpha: float
    person: float
    rows: int


def agreement(ratings: Sequence[Sequence[Hashable]]) -> Agreement | None:
    """Krippendorff's alpha for nominal labels (Krippendorff 2011), any number of annotators a row;
    None below two labels a row.
    """
    rated = [Counter(row) for row in ratings if len(row) > 1]
    if not rated:
        return None
    total: Counter[Hashable] = Counter()
    observed = 0.0
    for counts in rated:
        total.update(counts)
        m = counts.total()
        observed += sum(k * (m - k) for k in counts.values()) / (m - 1)
    n = total.total()
    expected = sum(k * (n - k) for k in total.values()) / (n - 1)
    alpha = 1 - observed / expected if expected else 1.0
    return Agreement(alpha, sum(map(_one_against_the_others, rated)) / len(rated), len(rated))


def _one_against_the_others(counts: Counter[Hashable]) -> float:
    """How often an annotator of this row gives the label most others gave; ties among the others
    count in part.
    """
    hits = 0.0
    for label, count in counts.items():
        others = counts - Counter([label])
        most = max(others.values())
        winners = [other for other, k in others.items() if k == most]
        hits += count * (label in winners) / len(winners)
    return hits / counts.total()


def _disagree(rows: Sequence[int], values: Sequence[str]) -> bool:
    return len({values[row] for row in rows}) > 1

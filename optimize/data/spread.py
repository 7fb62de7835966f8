"""Which few of many rows to take, so that they are told apart and matter most. Numbers in, row
numbers out. Knows no LM.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

WIDER = 10  # candidates for each row that is wanted
SIZE = 100  # dimensions that TF-IDF vectors are brought to: k-means says little in thousands


def spread(vectors: Any, weights: Sequence[float], k: int, seed: int = 0) -> list[int]:
    """The numbers of at most k rows of weight above 0: of the WIDER·k heaviest, one a cluster, the
    one nearest to its centre.

    Clusters are those of k-means in which rows count by their weight, so that a dense part of rows
    that matter gets more of the k (Zhdanov 2019, Diverse mini-batch active learning,
    arXiv:1901.05954). With equal weights the k are typical rows of k parts of the set, which is
    what to label first where nothing is known (Hacohen, Dekel & Weinshall 2022, Active learning on
    a budget, arXiv:2202.02794).

    vectors: (len(weights), size), sparse or dense.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = [n for n, weight in enumerate(weights) if weight > 0]
    random.Random(seed).shuffle(rows)  # so that the file's order decides no tie
    rows = sorted(rows, key=lambda n: -weights[n])[: WIDER * k]
    if len(rows) <= k:
        return sorted(rows)
    points, mass = _dense(vectors[rows], seed), np.array([weights[n] for n in rows])
    many = min(k, len(np.unique(points, axis=0)))
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        found = KMeans(many, n_init=3, random_state=seed).fit(points, sample_weight=mass)
    far = np.linalg.norm(points - found.cluster_centers_[found.labels_], axis=1)
    # fewer clusters than asked for, where vectors are equal but for rounding
    full = [np.flatnonzero(found.labels_ == c) for c in np.unique(found.labels_)]
    taken = {rows[min(one, key=lambda n: far[n])] for one in full}
    more = [n for n in rows if n not in taken][: k - len(taken)]
    return sorted(taken | set(more))


def _dense(vectors: Any, seed: int) -> Any:
    """Rows of length 1; of sparse ones their main directions."""
    import numpy as np
    from scipy.sparse import issparse
    from sklearn.decomposition import TruncatedSVD

    if issparse(vectors):
        size = min(SIZE, min(vectors.shape) - 1)
        few = size < 1
        vectors = (
            vectors.toarray()
            if few
            else TruncatedSVD(size, random_state=seed).fit_transform(vectors)
        )
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

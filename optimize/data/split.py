"""Which row goes to which side: by content hash, stratified, near-duplicates together. Numbers and
texts in, names out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from typing import Any

Inputs = tuple[str, ...]  # a row's inputs, a text a field
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
NEAR = 0.8  # cosine of character n-grams from which two texts count as the same text typed twice
BATCH = 50_000  # pairs of texts compared at a time, for want of memory


def folded(text: str) -> str:
    """The text without case and extra white space: what is equal then was typed twice."""
    return " ".join(text.casefold().split())


def apart_from(rows: Sequence[Inputs], held: Sequence[Inputs]) -> list[int]:
    """The numbers of the rows that are not nearly the same as one of `held`."""
    groups = near_duplicate_groups([*rows, *held])
    known = set(groups[len(rows) :])
    return [n for n in range(len(rows)) if groups[n] not in known]


def near_duplicate_groups(rows: Sequence[Inputs], near: float = NEAR) -> list[int]:
    """A group number for each row; rows that near_graph connects share one."""
    return connected(near_graph(rows, near))


def connected(graph: Any) -> list[int]:
    """A group number for each row of a graph."""
    from scipy.sparse.csgraph import connected_components

    return [int(group) for group in connected_components(graph, directed=False)[1]]


def near_graph(rows: Sequence[Inputs], near: float = NEAR) -> Any:
    """rows × rows, sparse: an entry where each field of one is at least `near` to the other's.

    Field by field, since a long text that two rows share would make their short questions alike.
    The likeness of two texts hangs a little on what other rows there are (rare n-grams count more),
    so what is to agree must be asked of the same rows, in any order.
    """
    order = sorted(range(len(rows)), key=lambda n: rows[n])
    place = [0] * len(rows)
    for new, old in enumerate(order):
        place[old] = new
    return _sorted_graph(tuple(rows[n] for n in order), near)[place][:, place]


@lru_cache(maxsize=2)  # of thousands of rows it takes half a minute, and four checks ask for it
def _sorted_graph(rows: tuple[Inputs, ...], near: float) -> Any:
    # the field with the most different texts first: it leaves the fewest pairs to look at
    fields = sorted(zip(*rows, strict=True), key=lambda texts: len(set(texts)), reverse=True)
    graph = _alike(fields[0], near)
    for texts in fields[1:]:
        if len(set(texts)) > 1:
            graph = _also_alike(graph, texts, near)
    return graph.tocsr()


def _alike(texts: Sequence[str], near: float) -> Any:
    from sklearn.neighbors import NearestNeighbors

    vectors = _vectors(texts)
    return (
        NearestNeighbors(metric="cosine", radius=1 - near)
        .fit(vectors)
        .radius_neighbors_graph(vectors)
    )


def _also_alike(graph: Any, texts: Sequence[str], near: float) -> Any:
    """The entries of the graph whose texts are alike as well."""
    import numpy as np
    from scipy.sparse import csr_matrix

    vectors, pairs = _vectors(texts), graph.tocoo()
    kept = np.zeros(len(pairs.row), dtype=bool)
    for start in range(0, len(kept), BATCH):
        one, other = (side[start : start + BATCH] for side in (pairs.row, pairs.col))
        likeness = vectors[one].multiply(vectors[other]).sum(axis=1)
        kept[start : start + BATCH] = np.asarray(likeness).ravel() >= near
    entries = np.ones(int(kept.sum()))
    return csr_matrix((entries, (pairs.row[kept], pairs.col[kept])), shape=graph.shape)


def _vectors(texts: Sequence[str]) -> Any:
    from optimize.data.words import Letters

    return Letters(ngram_range=(3, 5)).fit_transform(texts)


def split_groups(hashes: list[str], labels: list[str], groups: list[int]) -> list[str]:
    """A side for each row: within a label, groups of rows in hash order, the first 60 % of the rows
    for train, the next 15 % for val, the rest for test.

    The same rows give the same split, whatever their order in the file; and a row that is added
    moves at most one row of its label across each border, so that most test rows stay test rows,
    and what they have judged is still known of them.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        rows.sort(key=lambda row: hashes[row])
        by_label[labels[rows[0]]].append(rows)
    side = [""] * len(hashes)
    for label, found in by_label.items():
        total, done = sum(map(len, found)), _rounding(label)
        for rows in sorted(found, key=lambda rows: hashes[rows[0]]):
            name = _side((done + len(rows) / 2) / total)
            done += len(rows)
            for row in rows:
                side[row] = name
    return side


def _rounding(label: str) -> float:
    """Of the label's borders, in rows: half a row either way, so that the fractions of rows of many
    labels do not all fall to one side.
    """
    return int.from_bytes(sha256(label.encode()).digest()[:4]) / 2**32 - 0.5


def _side(place: float) -> str:
    """place: in the label's rows, 0…1."""
    for name, border in zip(SHARES, accumulate(SHARES.values()), strict=True):
        if place < border:
            return name
    return name

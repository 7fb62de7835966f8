"""Which row goes to which side: by content hash, stratified, near-duplicates together. Numbers and
texts in, names out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from typing import Any

Inputs = tuple[str, ...]  # a row's inputs, a text a field
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
FEWEST = 8  # rows of a side
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
    for train, the next 15 % for val, the rest for test. A group that is larger than val's part is
    for train, and the others make up the parts.

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
        total = sum(map(len, found))
        large = [rows for rows in found if 1 < len(rows) > SHARES["val"] * total]
        others = [rows for rows in found if rows not in large]
        left = total - sum(map(len, large))
        parts = {name: share * total for name, share in SHARES.items()}
        parts["train"] = max(0.0, parts["train"] - (total - left))
        named = [("train", rows) for rows in large]
        named += _in_turn(
            sorted(others, key=lambda rows: hashes[rows[0]]), parts, _rounding(label, total)
        )
        for name, rows in named:
            for row in rows:
                side[row] = name
    _top_up(side, sorted(members.values(), key=lambda rows: hashes[rows[0]], reverse=True))
    return side


def _top_up(side: list[str], groups: list[list[int]]) -> None:
    """Give val and test of few rows what rounding has left short of FEWEST, from train. groups: the
    ones to give first.
    """
    for name in ("val", "test"):
        lacks = min(FEWEST, round(SHARES[name] * len(side))) - side.count(name)
        for rows in groups:
            if lacks <= 0:
                break
            if side[rows[0]] == "train" and len(rows) <= lacks:
                lacks -= len(rows)
                for row in rows:
                    side[row] = name


def _in_turn(
    groups: list[list[int]], parts: dict[str, float], begin: float
) -> Iterator[tuple[str, list[int]]]:
    """Each group with the side that its middle lies in. parts: of each side, in rows or so. begin:
    rows before the first one.
    """
    rows, whole, done = sum(map(len, groups)), sum(parts.values()), begin
    borders = list(accumulate(part * rows / whole for part in parts.values()))
    for group in groups:
        middle, done = done + len(group) / 2, done + len(group)
        inside = (name for name, end in zip(parts, borders, strict=True) if middle < end)
        yield next(inside, list(parts)[-1]), group


def _rounding(label: str, rows: int) -> float:
    """Of the borders of a label of which val's part is not one row, in rows: half a row either
    way, so that the fractions of many labels do not all fall to one side.
    """
    if SHARES["val"] * rows >= 1:
        return 0.0
    return int.from_bytes(sha256(label.encode()).digest()[:4]) / 2**32 - 0.5

"""Which row goes to which side: by content hash, stratified, near-duplicates together. Numbers and
texts in, names out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
NEAR = 0.8  # cosine of character n-grams from which two texts count as the same text typed twice


def folded(text: str) -> str:
    """The text without case and extra white space: what is equal then was typed twice."""
    return " ".join(text.casefold().split())


def apart_from(texts: Sequence[str], held: Sequence[str]) -> list[int]:
    """The numbers of the texts that are not nearly the same as one of `held`."""
    groups = near_duplicate_groups([*texts, *held])
    known = set(groups[len(texts) :])
    return [n for n in range(len(texts)) if groups[n] not in known]


def near_duplicate_groups(texts: list[str], near: float = NEAR) -> list[int]:
    """A group number for each text; texts connected by similarity of at least `near` share one."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform(texts)
    graph = (
        NearestNeighbors(metric="cosine", radius=1 - near)
        .fit(vectors)
        .radius_neighbors_graph(vectors)
    )
    return [int(group) for group in connected_components(graph, directed=False)[1]]


def split_groups(hashes: list[str], labels: list[str], groups: list[int]) -> list[str]:
    """A side for each row. Within a label, groups of rows in hash order go to the side that lacks
    most of its share.

    The same rows give the same split, whatever their order in the file.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        rows.sort(key=lambda row: hashes[row])
        by_label[labels[rows[0]]].append(rows)
    side = [""] * len(hashes)
    for label in sorted(by_label):
        counts: Counter[str] = Counter()
        for rows in sorted(by_label[label], key=lambda rows: hashes[rows[0]]):
            total = counts.total() + len(rows)
            name = max(SHARES, key=lambda s: SHARES[s] * total - counts[s])
            counts[name] += len(rows)
            for row in rows:
                side[row] = name
    return side

"""Where did it get better, and where worse?

Rows by label, length, source and nearness to train rows. Knows no LM.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import dspy

from optimize.data.inputs import input_text
from optimize.files import to_json
from optimize.stats.records import GainRecord, Record
from optimize.task import Task

LEAST = 5  # rows of a slice worth a line
SOURCE = "source"  # an extra column that says where a row comes from


class SliceRecord(Record):
    """The mean score of two programs on the rows of one slice that both scored, and the paired
    gain.
    """

    name: str
    before: float
    after: float
    gain: GainRecord


def slices(
    task: Task, train: Sequence[dspy.Example], rows: Sequence[dspy.Example]
) -> dict[str, list[int]]:
    """Row numbers by slice.

    Rows lie in several: their label, a third by length, their source, the nearer or farther half.
    """
    texts = [input_text(task, e.inputs()) for e in rows]
    found: dict[str, list[int]] = defaultdict(list)
    for n, row in enumerate(rows):
        if task.label:
            found[f"label {to_json(row[task.label])}"].append(n)
        if SOURCE in row and SOURCE not in task.fields:
            found[f"source {row[SOURCE]}"].append(n)
    for names, order in (
        (("short", "middling", "long"), sorted(range(len(rows)), key=lambda n: len(texts[n]))),
        (
            ("unlike any train row", "like some train row"),
            _by_likeness([input_text(task, e.inputs()) for e in train], texts),
        ),
    ):
        for place, n in enumerate(order):
            found[names[place * len(names) // len(order)]].append(n)
    return {name: sorted(numbers) for name, numbers in found.items() if len(numbers) >= LEAST}


def by_slice(
    groups: Mapping[str, Sequence[int]],
    before: Sequence[float | None],
    after: Sequence[float | None],
) -> list[SliceRecord]:
    """The slices' scores, the worst gain first.

    Of many slices some look bad by chance: their intervals say how bad.
    """
    out = []
    for name, numbers in groups.items():
        first, second = [before[n] for n in numbers], [after[n] for n in numbers]
        both = [
            (b, a) for b, a in zip(first, second, strict=True) if b is not None and a is not None
        ]
        if len(both) >= LEAST:
            means = (sum(side) / len(both) for side in zip(*both, strict=True))
            out.append(
                SliceRecord(
                    name=name,
                    **dict(zip(("before", "after"), means, strict=True)),
                    gain=GainRecord.between(first, second),
                )
            )
    return sorted(out, key=lambda s: s.gain.mean)


def _by_likeness(train: Sequence[str], texts: Sequence[str]) -> list[int]:
    """The rows' numbers, those least like any train row first (cosine of TF-IDF over letters)."""
    from optimize.data.words import Letters

    vectorizer = Letters(ngram_range=(2, 4), sublinear_tf=True)
    known = vectorizer.fit_transform(train)
    nearest = (vectorizer.transform(texts) @ known.T).max(axis=1).toarray().ravel()
    return [int(n) for n in nearest.argsort(kind="stable")]

"""Which label was answered for which, as a heat map, and how well each one is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

from optimize.report.page import Page
from optimize.report.rows import Answers, RowTable
from optimize.report.sections import Section

MOST = 14  # labels of a heat map; the others are one
OTHER, SHADES = "(other)", 9


@dataclass(frozen=True)
class Heat:
    """Rows of labels, columns of answers: how many, and how dark (0 to 9, by share of the row)."""

    program: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, int]]]]


@dataclass(frozen=True)
class Pairs:
    """What a program answered where the right label was known, a pair a row."""

    program: str
    found: Sequence[tuple[str, str]]


def pairs(page: Page) -> list[Pairs]:
    """Of the compared programs; empty where the output is no label."""
    if not (page.label and page.judged):
        return []
    _, table = page.judged
    return [
        Pairs(name, _answered(page.label, table, found))
        for name, found in page.sides(table).items()
    ]


def _answered(label: str, table: RowTable, found: Answers) -> list[tuple[str, str]]:
    triples = zip(table.gold[label], found.fields[label], found.scores, strict=False)
    return [(gold, said) for gold, said, score in triples if score is not None]


def heat(found: Pairs, labels: Sequence[str]) -> Heat:
    shown = list(labels[:MOST])
    counts = Counter((_among(gold, shown), _among(said, shown)) for gold, said in found.found)
    golds, answered = ({pair[side] for pair in counts} for side in (0, 1))
    columns = [*shown, *({OTHER} & answered)]
    rows = []
    for gold in [*shown, *({OTHER} & golds)]:
        numbers = [counts[gold, said] for said in columns]
        whole = sum(numbers) or 1
        rows.append((gold, [(n, round(SHADES * n / whole)) for n in numbers]))
    return Heat(found.program, columns, rows)


def _among(label: str, shown: Sequence[str]) -> str:
    return label if label in shown else OTHER


def order(found: Sequence[Pairs]) -> list[str]:
    """The labels of the rows: the most of them first where not all can be shown, else by name."""
    counts = Counter(gold for one in found for gold, _ in one.found)
    return sorted(counts) if len(counts) <= MOST else [label for label, _ in counts.most_common()]


def per_label(found: Sequence[Pairs], labels: Sequence[str]) -> Section:
    """Recall and precision of each label by each program; a dash where it was never answered."""
    from sklearn.metrics import precision_recall_fscore_support

    columns, shares = ["label", "rows"], list[Sequence[float]]()
    for name, part in (("found", 1), ("right when said", 0)):
        for one in found:
            gold, said = (list(side) for side in zip(*one.found, strict=True))
            asked = {"labels": list(labels), "average": None, "zero_division": nan}
            figures = precision_recall_fscore_support(gold, said, **asked)
            columns.append(f"{name}, {one.program}")
            shares.append(figures[part])
    counts = Counter(gold for gold, _ in found[0].found)
    table = [
        [label, str(counts[label])]
        + ["–" if isnan(share[n]) else f"{share[n]:.2f}" for share in shares]
        for n, label in enumerate(labels)
    ]
    return Section("Label by label", (), columns, table)

"""What is worth knowing of the rows: duplicates, contradictions, overlap, labels that a side lacks.

A finding's examples are all of them: whoever shows some says where the rest is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from optimize.data.excerpts import shown, shown_input
from optimize.data.fields import is_optional
from optimize.data.gold import Unscorable, scores_alone
from optimize.data.inputs import input_texts
from optimize.data.labels import Judged, duplicates, possible_label_errors
from optimize.data.rows import Splits, alike, row_hash
from optimize.data.split import connected
from optimize.errors import UserCodeError
from optimize.files import to_json
from optimize.stats.records import Record
from optimize.task import Task

REPEATS = 0.1  # of a side's rows: fewer that nearly repeat another hardly narrow an interval
RARE = 0.2  # of an equal share: a label with fewer rows than that is told
CONFLICTS = "inputs labelled in contradictory ways"
LEAKS = "pairs of rows with equal or nearly equal inputs on two sides of the split"


class Finding(Record):
    """Something about the rows worth knowing.

    problem: it makes scores wrong; else it is a thing to look at.
    """

    what: str
    count: int
    examples: list[str]
    problem: bool = False


def listed(what: str, examples: Sequence[str], problem: bool = False) -> Finding:
    return Finding(what=what, count=len(examples), examples=list(examples), problem=problem)


def row_findings(task: Task, splits: Splits, judged: Judged | None) -> list[Finding]:
    """All but what the metric and the prompt formats say of gold rows (climb/gold.py)."""
    found = [*_rows(task, splits, judged), *_unfilled(task, splits), *_coverage(task, splits)]
    return [finding for finding in found if finding.count]


def row_places(task: Task, splits: Splits) -> dict[str, str]:
    """File and line of each row, by its hash."""
    root = f"{task.root}/"
    return {
        row: " and ".join(p.removeprefix(root) for p in found)
        for row, found in splits.places.items()
    }


def labels_of(task: Task, rows: Sequence[dspy.Example]) -> list[str]:
    """Each row's label as a person reads it."""
    return [to_json(e[task.label]).strip('"') for e in rows]


def _rows(task: Task, splits: Splits, judged: Judged | None) -> list[Finding]:
    """Duplicates, contradictions, overlap and suspect labels over all sides together."""
    rows = [(side, e) for side, examples in splits.sides().items() for e in examples]
    examples = [e for _, e in rows]
    outputs = [to_json({name: e[name] for name in task.signature.output_fields}) for e in examples]
    where = row_places(task, splits)
    at = [f"{where.get(row_hash(task, e), side)} {shown(task, e)}" for side, e in rows]
    inputs = [input_texts(task, e) for e in examples]
    near = alike(task, splits)
    found = duplicates(inputs, outputs, [side for side, _ in rows], near)

    def groups(what: str, groups: Sequence[Sequence[int]], problem: bool = False) -> Finding:
        return listed(
            what, ["; ".join(dict.fromkeys(at[r] for r in rows)) for rows in groups], problem
        )

    findings = [
        groups(CONFLICTS, _at_odds(task, examples, found.conflicts), problem=True),
        groups(LEAKS, found.leaks, problem=True),
        groups("rows written more than once", found.same),
        groups("nearly equal inputs with different labels", found.near if task.label else ()),
    ]
    like = connected(near)
    for side in ("val", "test"):
        own = [r for r, (name, _) in enumerate(rows) if name == side]
        members: dict[int, list[int]] = {}
        for r in own:
            members.setdefault(like[r], []).append(r)
        if len(own) - len(members) > REPEATS * len(own):
            what = (
                f"groups of {side} rows that say nearly the same ({len(own)} rows, "
                f"{len(members)} different: intervals count each row and are too narrow)"
            )
            findings.append(groups(what, [g for g in members.values() if len(g) > 1]))
    if judged:
        contradicted = {row for group in found.conflicts for row in group}
        labels = labels_of(task, examples)
        suspect = [
            f"{where.get(row_hash(task, examples[r]), rows[r][0])} is {labels[r]!r}, others like "
            f"it {guess!r}: {shown_input(task, examples[r])}"
            for r, guess in possible_label_errors(judged)
            if r not in contradicted
        ]
        findings.append(listed("rows whose label looks wrong", suspect))
    return findings


def _at_odds(
    task: Task, rows: Sequence[dspy.Example], groups: Sequence[Sequence[int]]
) -> list[Sequence[int]]:
    """Those in which the metric takes one row's gold answer for a worse one to another: where it
    does not, as with lists in another order, or one reply in other words, the rows agree.
    """
    names = list(task.signature.output_fields)

    def gold(row: int) -> dict[str, Any]:
        return {name: rows[row][name] for name in names}

    def score(row: int, answer: int) -> float:
        return scores_alone(task, [rows[row]], [gold(answer)])[0].value

    def agree(group: Sequence[int]) -> bool:
        """Each different answer is held to the first one's row, and that one's to its row."""
        first, *others = {to_json(gold(row)): row for row in reversed(group)}.values()
        return all(
            score(a, b) >= score(a, a)
            for other in others
            for a, b in ((first, other), (other, first))
        )

    try:
        return [group for group in groups if not agree(group)]
    except (Unscorable, UserCodeError):  # a metric that fails on another's answer
        return list(groups)


def _unfilled(task: Task, splits: Splits) -> list[Finding]:
    """Optional outputs that are null in every row: perhaps a column of another name."""
    rows = [e for examples in splits.sides().values() for e in examples]
    fields = task.signature.output_fields
    empty = [n for n, f in fields.items() if is_optional(f) and all(e[n] is None for e in rows)]
    return [listed("optional outputs that are null in every row", empty)]


def _coverage(task: Task, splits: Splits) -> list[Finding]:
    """Labels that a side lacks or hardly has."""
    if not task.label:
        return []
    sides = {side: labels_of(task, rows) for side, rows in splits.sides().items()}
    seen = set(sides["train"])
    findings = []
    for side in ("val", "test"):
        unseen, absent = sorted(set(sides[side]) - seen), sorted(seen - set(sides[side]))
        findings += [
            listed(f"labels in {side} that train never shows", unseen, problem=True),
            listed(f"labels of train that {side} never asks for", absent),
        ]
    return [*findings, listed("labels that are rare in train", _rare(sides))]


def _rare(sides: Mapping[str, Sequence[str]]) -> list[str]:
    train = list(sides["train"])
    least = RARE * len(train) / len(set(train))
    return [
        f"{label} ({train.count(label)} rows)"
        for label in sorted(set(train))
        if train.count(label) < least
    ]

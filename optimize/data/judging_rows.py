"""Which train rows may judge until the verdict is in."""

from __future__ import annotations

from collections import Counter

import dspy

from optimize.data.rows import Splits, near_groups, row_hash
from optimize.data.split import SHARES
from optimize.task import Task

JUDGING = 200  # rows that judge, val among them: they find most plateaus 10 points below the target
Rows = tuple[dspy.Example, ...]


def judging_share(needed: int) -> float:
    """Which part of newly labelled rows judges, where so many judge in all and the tool divides
    them: val's, and as many of train's as `lent` takes.
    """
    return SHARES["val"] + (SHARES["train"] / 2 if needed <= JUDGING else 0.0)


def lent(task: Task, splits: Splits) -> tuple[Rows, Rows]:
    """(train rows that the climb may learn from and show, train rows that judge beside val).

    At most half of the train rows judge, the first ones in content-hash order, so that every run
    takes the same; nearly equal ones stay together. Rows that were chosen to be labelled never do,
    since they are harder than a random sample. None where the split is the user's own or val was
    cut. After the verdict all of them are train rows again.
    """
    cut = splits.whole is not None and len(splits.whole.val) > len(splits.val)
    chosen = [bool(splits.chosen) and row_hash(task, e) in splits.chosen for e in splits.train]
    size = min(chosen.count(False) // 2, JUDGING - len(splits.val))
    if splits.given or cut or size <= 0:
        return splits.train, ()
    groups = near_groups(task, splits)["train"]
    sizes = Counter(groups)
    barred = {group for group, picked in zip(groups, chosen, strict=True) if picked}
    judging: set[int] = set()
    taken = 0
    for group in sizes:
        if group not in barred and taken + sizes[group] <= size:
            judging.add(group)
            taken += sizes[group]
    both = list(zip(splits.train, groups, strict=True))
    return tuple(e for e, g in both if g not in judging), tuple(e for e, g in both if g in judging)

"""What earlier runs of a task have already asked of its rows. No LM is asked again."""

from __future__ import annotations

from dataclasses import dataclass

from optimize.climb.verdict import History, Tried
from optimize.commands.session import Session
from optimize.data.rows import row_hash
from optimize.store.read import earlier_histories, earlier_tests, rechecked_tests

Scores = tuple[float | None, ...]


@dataclass(frozen=True)
class Memory:
    """climbs: what was tried in each earlier one that most of these val rows have judged. rivals:
    their programs' scores on these val rows. read: scores of the programs that most of these test
    rows have judged.
    """

    climbs: frozenset[tuple[Tried, ...]]
    rivals: tuple[Scores, ...]
    read: frozenset[Scores]


def remembered(session: Session) -> Memory:
    """The best of a run is chosen from the programs of all runs on its rows, by whoever runs often;
    so they are all its rivals.
    """
    task, splits = session.task, session.splits
    val = [row_hash(task, e) for e in splits.val]
    test = [row_hash(task, e) for e in splits.test]
    climbs = list(earlier_histories(session.home, task.name, val))
    rivals = dict.fromkeys(scores for climb in climbs for scores in _aligned(climb, val))
    different = frozenset(climb.tried for climb in climbs)  # a fine-tune run repeats its climb's
    return Memory(different, tuple(rivals), frozenset(tests_read(session, test)))


def tests_read(session: Session, rows: list[str]) -> set[Scores]:
    """The scores on these test rows of all programs, on all LMs, that they have judged."""
    given = session.home, session.task.name, rows
    return earlier_tests(*given, ("prompt", "tuned")) | rechecked_tests(*given)


def _aligned(climb: History, val: list[str]) -> list[Scores]:
    """The earlier programs' scores on today's val rows; those whose race was stopped left out."""
    out = []
    for tried in climb.tried:
        if len(tried.scores) >= climb.val:
            known = dict(zip(climb.rows, tried.scores, strict=False))
            out.append(tuple(known.get(row) for row in val))
    return out

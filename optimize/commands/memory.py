"""What earlier runs of a task have already asked of its rows. No LM is asked again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optimize.climb.verdict import History, Tried
from optimize.commands.session import Session
from optimize.commands.sweeping.plan import FOLDER
from optimize.data.rows import row_hash
from optimize.stats.reads import ByRow
from optimize.store.open import own_store
from optimize.store.read import earlier_histories, earlier_tests, rechecked_tests

Scores = tuple[float | None, ...]


@dataclass(frozen=True)
class Memory:
    """climbs: what was tried in each earlier one that most of these val rows have judged. rivals:
    their programs' scores on these val rows. read: scores of the programs that test rows have
    judged.
    """

    climbs: frozenset[tuple[Tried, ...]]
    rivals: tuple[Scores, ...]
    read: tuple[ByRow, ...]


def remembered(session: Session) -> Memory:
    """The best of a run is chosen from the programs of all runs on its rows, by whoever runs often
    or sweeps; so they are all its rivals.
    """
    task, splits = session.task, session.splits
    val = [row_hash(task, e) for e in splits.val]
    climbs = list(earlier_histories(session.home, task.name, val))
    with own_store():
        for home in _cells(session):
            climbs += earlier_histories(home, task.name, val)
    rivals = dict.fromkeys(scores for climb in climbs for scores in _aligned(climb, val))
    different = frozenset(climb.tried for climb in climbs)  # a fine-tune run repeats its climb's
    return Memory(different, tuple(rivals), tuple(tests_read(session)))


def tests_read(session: Session) -> list[ByRow]:
    """The scores on test rows of all programs, on all LMs, that they have judged."""
    given, both = (session.home, session.task.name), ("prompt", "tuned")
    found = [*earlier_tests(*given, both), *rechecked_tests(*given).values()]
    with own_store():
        for home in _cells(session):
            found += earlier_tests(home, session.task.name, both)
    return found


def _cells(session: Session) -> list[Path]:
    """The homes of the task's runs in sweeps, which were made to choose the best of them."""
    stores = session.home.glob(f"{FOLDER}/*/{session.task.name}-*/mlruns/mlflow.db")
    return [store.parents[1] for store in sorted(stores)]


def _aligned(climb: History, val: list[str]) -> list[Scores]:
    """The earlier programs' scores on today's val rows; those whose race was stopped left out."""
    out = []
    for tried in climb.tried:
        if len(tried.scores) >= climb.val:
            known = dict(zip(climb.rows, tried.scores, strict=False))
            out.append(tuple(known.get(row) for row in val))
    return out

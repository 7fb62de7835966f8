"""What earlier runs of a task have already asked of its rows. No LM is asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from optimize.climb.verdict import History, Tried
from optimize.commands.session import Session
from optimize.commands.sweeping.plan import FOLDER
from optimize.data.rows import row_hash
from optimize.stats.reads import ByRow
from optimize.store.open import own_store
from optimize.store.read import earlier_histories, earlier_tests, rechecked_tests

Scores = tuple[float | None, ...]
T = TypeVar("T")


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
    climbs = _of_all_runs(session, lambda home: earlier_histories(home, task.name, val))
    rivals = dict.fromkeys(scores for climb in climbs for scores in _aligned(climb, val))
    different = frozenset(climb.tried for climb in climbs)  # a fine-tune run repeats its climb's
    return Memory(different, tuple(rivals), tuple(tests_read(session)))


def tests_read(session: Session) -> list[ByRow]:
    """The scores on test rows of all programs, on all LMs, that they have judged."""
    rechecked = rechecked_tests(session.home, session.task.name).values()
    return [*_tests_of(session, ("prompt", "tuned")), *rechecked]


def tunings_read(session: Session) -> list[ByRow]:
    """Those of tuned LMs alone."""
    return _tests_of(session, ("tuned",))


def _tests_of(session: Session, programs: Sequence[str]) -> list[ByRow]:
    name = session.task.name
    return _of_all_runs(session, lambda home: earlier_tests(home, name, programs))


def _of_all_runs(session: Session, read: Callable[[Path], Iterable[T]]) -> list[T]:
    """What is read of the project's runs, and of the task's runs in sweeps, each in a home of its
    own: they were made to choose the best of them.
    """
    found = list(read(session.home))
    stores = session.home.glob(f"{FOLDER}/*/{session.task.name}-*/mlruns/mlflow.db")
    with own_store():
        for store in sorted(stores):
            found += read(store.parents[1])
    return found


def _aligned(climb: History, val: list[str]) -> list[Scores]:
    """The earlier programs' scores on today's val rows; those whose race was stopped left out."""
    out = []
    for tried in climb.tried:
        if len(tried.scores) >= climb.val:
            known = dict(zip(climb.rows, tried.scores, strict=False))
            out.append(tuple(known.get(row) for row in val))
    return out

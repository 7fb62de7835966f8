"""May this task be fine-tuned? A pure function of the climb; the reasons are for people. First version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.ladder import Attempt, Climb
from optimize.task import Task

LEAST_ROWS = 64  # below this, a LoRA on a small LM memorizes rather than learns


@dataclass(frozen=True)
class Gate:
    open: bool
    reasons: tuple[str, ...]


def gate(task: Task, climb: Climb, train_rows: int) -> Gate:
    """Open only on a plateau below target, with rows enough to learn from and no untried lever that fits better."""
    verdict = climb.decision.verdict
    if verdict == "reached":
        return Gate(False, (f"Prompting reached the target{_credit(climb)}; weights need not change.",))
    if verdict != "plateau":
        return Gate(False, (f"The verdict is {verdict}: it is not shown that prompting cannot reach the target.",))
    if task.corpus and not _scored(climb.attempts, "retrieval"):
        return Gate(False, ("The task has a corpus, but retrieval was not scored: missing knowledge is not a case for weights.",))
    if train_rows < LEAST_ROWS:
        return Gate(False, (f"Only {train_rows} train rows; fine-tuning needs at least {LEAST_ROWS}.",))
    return Gate(True, ("Prompting has plateaued below the target.", f"{train_rows} train rows to learn from."))


def winning_levers(climb: Climb) -> list[str]:
    """The rungs that made the best prompt program, in order."""
    return [a.rung for a in _won(climb)]


def _won(climb: Climb) -> list[Attempt]:
    until = next(n for n, a in enumerate(climb.attempts) if a is climb.best)
    return [a for a in climb.attempts[: until + 1] if a.promoted and a.gain]


def _credit(climb: Climb) -> str:
    won = _won(climb)
    if not won:
        return " without any lever"
    most = max(won, key=lambda a: a.gain.mean if a.gain else 0.0)
    assert most.gain
    return f"; the lever that gained most was {most.rung} ({most.gain.mean:+.3f})"


def _scored(attempts: Sequence[Attempt], family: str) -> bool:
    return any(a.family == family and a.evaluation for a in attempts)

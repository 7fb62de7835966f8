"""A change of a task's champion, and why one is refused."""

from __future__ import annotations

from pydantic import Field

from optimize.report.record import Side
from optimize.report.runs import ID
from optimize.report.tasks import ChampionRecord, champion_sentence
from optimize.stats.records import Record

ROLLED = "rolled back"


class Promoted(Record):
    """A task's champion after `promote` or `rollback`. test: of the champion before and this one,
    on the test rows that both were asked.
    """

    task: str
    champion: ChampionRecord
    before: str | None = Field(description="the run that was it; null: none, or the same")
    test: Side | None = None


def promoted_lines(found: Promoted) -> list[str]:
    """What the champion is now, and what it was."""
    told = champion_sentence(found.champion)
    lines = [f"{found.task}: {told}"]
    if found.before is None:
        return lines
    back = f" `optimize rollback {found.task}` goes back." if found.champion.how != ROLLED else ""
    lines += [f"Before it was run {found.before[:ID]}.{back}"]
    return [*lines, f"O{_compared(found.test)[1:]}."] if found.test else lines


def refusal(run: str, champion: str, found: Side | None) -> str:
    """Why a run's program does not become the champion, and what would make it so."""
    who = f"Run {run[:ID]} against the champion, run {champion[:ID]}"
    why = (
        f"{who}: {_compared(found)}. That does not show that it is better"
        if found
        else f"{who}: no test row was scored for both by one metric or judge, so nothing shows "
        "that it is better"
    )
    return f'{why}. To promote it all the same, say why with --reason "…"; that is kept on record.'


def _compared(found: Side) -> str:
    gain = found.gain
    return (
        f"on the {gain.n} test rows that both were asked it scores {found.after}, the champion "
        f"{found.before}, a gain of {gain} ({gain.changed})"
    )

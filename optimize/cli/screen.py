"""The live view of a climb in a terminal: attempts so far, the rung at work, its progress. Draws on
stderr.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from optimize.climb.observer import Attempt, Observer
from optimize.report.record import AttemptRecord
from optimize.report.text import attempts_table


class Screen(Observer):
    """A table that fills as rungs end.

    Where stderr is not a terminal, one plain line a finished rung.
    """

    def __init__(self) -> None:
        # bound now: optimizers' output is hushed by redirecting sys.stderr
        self.console = Console(file=sys.stderr)
        self.records: list[AttemptRecord] = []
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self.bar = self.progress.add_task("loading the task", total=None, note="")
        self.live = Live(
            console=self.console, get_renderable=self._view, transient=True, refresh_per_second=4
        )

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def noted(self, line: str) -> None:
        self.console.print(
            f"· {line}", soft_wrap=not self.console.is_terminal, highlight=False, markup=False
        )

    def started(self, rung: str) -> None:
        self.progress.reset(self.bar, description=rung, total=None, note="")
        if not self.console.is_terminal:
            self.console.print(f"{rung} …")

    def scored(self, done: int, total: int, note: str = "") -> None:
        self.progress.update(self.bar, completed=done, total=total, note=note)

    def finished(self, attempt: Attempt) -> None:
        record = AttemptRecord.of(attempt)
        self.records.append(record)
        if not self.console.is_terminal:
            scored = record.val and f"{record.val.with_n} {record.gain or ''}"
            outcome = scored or record.skipped or record.error
            self.console.print(
                f"{record.rung}: {outcome} ({record.seconds:.0f} s, {record.lm_calls} calls)",
                soft_wrap=True,
            )

    def _view(self) -> Group:
        return (
            Group(attempts_table(self.records), self.progress)
            if self.records
            else Group(self.progress)
        )

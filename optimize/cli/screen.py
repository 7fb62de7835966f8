"""The live view of a climb in a terminal: attempts so far, the rung at work, its progress. Draws on
stderr.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from optimize.climb.observer import Attempt, Observer
from optimize.report.record import AttemptRecord
from optimize.report.text import attempts_table

EVERY = 60.0  # seconds between two lines about one stretch of work, where stderr is a file


def plain_console(**options: Any) -> Console:
    """A console that takes nothing for markup or emoji: rows and LM text are printed as they are.

    It covers whatever is printed on it, cells of tables included.
    """
    return Console(markup=False, emoji=False, **options)


def time_left(seconds: float, done: int, total: int) -> str:
    """How long the rest takes at the pace so far; empty where that is not known."""
    if not 0 < done < total:
        return ""
    left = seconds / done * (total - done)
    return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"


@contextlib.contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of the bytes fetched so far, where stderr is a terminal."""
    console = plain_console(file=sys.stderr)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, size: progress.update(bar, completed=done, total=size)


FIELDS = ("description", "fields[note]", "fields[left]")


class Screen(Observer):
    """A table that fills as rungs end, and how far the work at hand is.

    Where stderr is not a terminal, one plain line a finished rung, and one a minute of long work.
    """

    def __init__(self) -> None:
        # bound now: optimizers' output is hushed by redirecting sys.stderr
        self.console = plain_console(file=sys.stderr)
        self.records: list[AttemptRecord] = []
        text = [TextColumn(f"{{task.{field}}}", markup=False) for field in FIELDS]
        self.progress = Progress(
            SpinnerColumn(), text[0], BarColumn(), MofNCompleteColumn(), *text[1:],
            console=self.console,
        )  # fmt: skip
        self.bar = self.progress.add_task("loading the task", total=None, note="", left="")
        self.live = Live(
            console=self.console, get_renderable=self._view, transient=True, refresh_per_second=4
        )
        self.began = self.told = time.monotonic()
        self.last = 0, 0

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def noted(self, line: str) -> None:
        self.console.print(f"· {line}", soft_wrap=not self.console.is_terminal, highlight=False)

    def started(self, rung: str) -> None:
        self.began = self.told = time.monotonic()
        self.progress.reset(self.bar, description=rung, total=None, note="", left="")
        if not self.console.is_terminal:
            self.console.print(f"{rung} …")

    def scored(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if total != self.last[1] or 2 * done < self.last[0]:  # other work of the same step
            self.began = now
        self.last = done, total
        left = time_left(now - self.began, done, total)
        self.progress.update(self.bar, completed=done, total=total, note=note, left=left)
        if not self.console.is_terminal and now - self.told >= EVERY:
            self.told = now
            rung = self.progress.tasks[0].description
            far = f"{done}/{total}" if total else ""
            said = ", ".join(filter(None, (f"{rung}: {far} {note}".strip(), left)))
            self.console.print(said, soft_wrap=True, highlight=False)

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

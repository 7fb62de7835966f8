"""The live view of a climb in a terminal: rungs so far, the one at work, the verdict as it forms.
Draws on stderr.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.spinner import Spinner
from rich.text import Text

from optimize.climb.observer import Attempt, Observer
from optimize.climb.verdict import History
from optimize.lm.meter import Meter
from optimize.report.live import (
    Work,
    fitting,
    forming,
    heading,
    last_lines,
    rung_line,
    spending_line,
    work_line,
)
from optimize.report.record import AttemptRecord

LATELY = 10.0  # seconds over which the pace of the calls is taken
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


class Screen(Observer):
    """A line a rung as rungs end, how far the work at hand is, and the verdict as it forms.

    Where stderr is not a terminal, one plain line a finished rung, and one a minute of long work.
    """

    def __init__(self) -> None:
        # bound now: optimizers' output is hushed by redirecting sys.stderr
        self.console = plain_console(file=sys.stderr)
        self.records: list[AttemptRecord] = []
        self.work = Work("loading the task")
        self.target: float | None = None
        self.so_far: list[str] = []
        self.spinner = Spinner("dots")
        self.spending: _Spending | None = None
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

    def counts(self, meter: Meter, threads: int) -> None:
        """Whose calls are shown as they are made, and how many there may be at once."""
        self.spending = _Spending(meter, threads)

    def noted(self, line: str) -> None:
        self.console.print(f"· {line}", soft_wrap=not self.console.is_terminal, highlight=False)

    def started(self, rung: str) -> None:
        self.began = self.told = time.monotonic()
        self.work = Work(rung)
        self._plain(f"{rung} …")

    def scored(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if total != self.last[1] or 2 * done < self.last[0]:  # other work of the same step
            self.began = now
        self.last = done, total
        left = time_left(now - self.began, done, total)
        self.work = Work(self.work.name, done, total, note, left)
        if now - self.told >= EVERY:
            self.told = now
            far = f"{done}/{total}" if total else ""
            self._plain(", ".join(filter(None, (f"{self.work.name}: {far} {note}".strip(), left))))

    def finished(self, attempt: Attempt) -> None:
        record = AttemptRecord.of(attempt)
        self.records.append(record)
        scored = record.val and record.val.with_n
        if scored and record.gain:
            scored += f" {record.gain}{' ▲' if record.promoted else ''}"
        outcome = scored or record.skipped or record.error
        self._plain(f"{record.rung}: {outcome} ({record.seconds:.0f} s, {record.lm_calls} calls)")

    def decided(self, history: History) -> None:
        self.target, before = history.target, self.so_far
        self.so_far = forming(history)
        if self.so_far != before:
            self._plain(f"{'. '.join(self.so_far)}.")

    def _plain(self, line: str) -> None:
        """Where stderr is no terminal, a line of it."""
        if not self.console.is_terminal:
            self.console.print(line, soft_wrap=True, highlight=False)

    def _view(self) -> Group:
        width, height = self.console.width, self.console.height
        under = [work_line(self.work, str(self.spinner.render(time.monotonic())), width)]
        under += self.spending.lines(width) if self.spending else []
        under += [fitting(Text(line), width) for line in self.so_far]
        tried = [rung_line(record, self.target, width) for record in self.records]
        above = [heading(width), *last_lines(tried, height - len(under) - 2)] if tried else []
        return Group(*above, *under)


class _Spending:
    """The calls of a run as they are made."""

    def __init__(self, meter: Meter, threads: int) -> None:
        self.meter, self.threads = meter, threads
        self.seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def lines(self, width: int) -> list[Text]:
        """One, or none before the first call."""
        used, now = self.meter.usage(), time.monotonic()
        if not used.asked:
            return []
        self.seen.append((now, used.calls))
        while now - self.seen[0][0] > LATELY and len(self.seen) > 2:
            self.seen.popleft()
        then, before = self.seen[0]
        pace = (used.calls - before) / max(now - then, 1.0)
        return [spending_line(used, self.meter.max_calls, pace, self.threads, width)]

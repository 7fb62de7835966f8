"""More judging rows for the programs that may be the best one. Asks no LM itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from optimize.climb.verdict import History, contenders, decide
from optimize.scoring.evaluate import BLOCK

CLEAR = 0.005  # chance of being at the target from which on no further row is asked

# (number of the program, first row, end) → its scores, and how many of these rows are longer than
# the LM reads; None where the calls do not suffice
Ask = Callable[[int, int, int], tuple[Sequence[float | None], int] | None]


def still_reached(history: History, rows: int, ask: Ask) -> History:
    """The best program, which val says is at the target, asked on fresh rows until all `rows`
    judging rows have spoken or say otherwise.
    """
    while decide(history).verdict == "reached":
        best = contenders(history.tried, history.val)[0]
        if (longer := _asked(history, [best], rows, ask)) is None:
            break
        history = longer
    return history


def compared(history: History, rows: int, ask: Ask) -> History:
    """All programs that may be the best one, asked on fresh rows side by side; those that fall
    behind are asked no more. Ends early where one is left that is clearly below the target.
    """
    while True:
        close = contenders(history.tried, history.val)
        if len(close) == 1 and decide(history).chance <= CLEAR:
            return history
        least = min(len(history.tried[n].scores) for n in close)
        behind = [n for n in close if len(history.tried[n].scores) == least]
        if (longer := _asked(history, behind, rows, ask)) is None:
            return history
        history = longer


def _asked(history: History, programs: Sequence[int], rows: int, ask: Ask) -> History | None:
    """The history with one more block of rows for these programs; None where there is none."""
    tried = list(history.tried)
    for n in programs:
        start = len(tried[n].scores)
        end = min(rows, start + BLOCK)
        found = ask(n, start, end) if start < end else None
        if found is None:
            return None
        scores, unread = found
        tried[n] = replace(
            tried[n], scores=(*tried[n].scores, *scores), unread=tried[n].unread + unread
        )
    return replace(history, tried=tuple(tried))

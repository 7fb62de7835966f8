"""One budget for all cells of a sweep: calls handed out in slices, and exact.

What a cell was granted and has not spent goes back when it ends. Of one that was lost it goes back
when the cell is resumed: each request is written down before it is sent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from optimize.errors import BudgetExhausted, StoreFailed

SLICE = 32  # calls that a cell is granted at once, while there are many


class Ledger:
    """Who was granted how much, in a file. Several processes may work on it, where locks of files
    hold; a Ray actor is the only one to.

    calls, usd: the budget; None: no cap. Granted is never more in sum than there is, and a cell
    spends no call that it was not granted. US dollars are known when a call is answered, so those
    in flight may go beyond.
    """

    def __init__(self, path: Path, calls: int | None, usd: float | None) -> None:
        self.path, self.calls, self.usd = path, calls, usd
        self.lock = FileLock(path.with_suffix(".lock"))

    def claim(self, cell: str, spent: int, usd: float) -> None:
        """A cell begins, or begins again, and has spent so much in its earlier lives."""
        self._set(lambda cells: cells.update({cell: _entry(spent, spent, usd, True)}))

    def close(self, cell: str, spent: int, usd: float) -> None:
        """A cell has ended: what it was granted beyond that goes back."""
        self._set(lambda cells: cells.update({cell: _entry(spent, spent, usd, False)}))

    def more(self, cell: str, spent: int, usd: float, least: int) -> int:
        """Calls granted to a cell beyond what it was granted before: `least`, or more; 0 where so
        many are not left.
        """

        def grant(cells: dict[str, Any]) -> int:
            known = cells[cell]["granted"]
            cells[cell] = _entry(known, spent, usd, True)
            granted = self._slice(cells, least)
            cells[cell]["granted"] += granted
            return granted

        return int(self._set(grant))

    def _slice(self, cells: dict[str, Any], least: int) -> int:
        """Halves what is left for each cell at work, so that at the end hardly any lies idle."""
        at_work = sum(c["open"] for c in cells.values())
        usd, spent = (sum(c[name] for c in cells.values()) for name in ("usd", "spent"))
        granted, size = sum(c["granted"] for c in cells.values()), SLICE
        if self.usd is not None:
            if usd >= self.usd:
                return 0
            if usd > 0 and spent:
                size = min(size, int((self.usd - usd) * spent / usd) // (2 * at_work))
        if self.calls is None:
            return max(least, size)
        left = self.calls - granted
        return max(least, min(size, left // (2 * at_work))) if left >= least else 0

    def _set(self, change: Callable[[dict[str, Any]], Any]) -> Any:
        with self.lock:
            cells = json.loads(self.path.read_text()) if self.path.is_file() else {}
            found = change(cells)
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(cells))
            new.replace(self.path)  # whole, whenever the process is killed
        return found


def _entry(granted: int, spent: int, usd: float, is_open: bool) -> dict[str, Any]:
    return {"granted": granted, "spent": spent, "usd": usd, "open": is_open}


class Granting(Protocol):
    """A ledger, here or behind an actor."""

    def claim(self, cell: str, spent: int, usd: float) -> None: ...

    def close(self, cell: str, spent: int, usd: float) -> None: ...

    def more(self, cell: str, spent: int, usd: float, least: int) -> int: ...


class CellPurse:
    """What one cell may spend: a `Purse` of its meter. Use as a context manager.

    short: it was refused calls. Every request is written to a file before it is sent, and what an
    answer took after it: that outlives the process.
    """

    def __init__(self, ledger: Granting, cell: str, path: Path, told: str) -> None:
        self.ledger, self.cell, self.path, self.told = ledger, cell, path, told
        self.spent, self.usd = read_spent(path)
        self.left, self.short = 0, False

    def __enter__(self) -> CellPurse:
        self._ask(lambda: self.ledger.claim(self.cell, self.spent, self.usd))
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._ask(lambda: self.ledger.close(self.cell, self.spent, self.usd))

    def take(self, calls: int) -> None:
        if self.left < calls:
            need = calls - self.left
            asked = self._ask(lambda: self.ledger.more(self.cell, self.spent, self.usd, need))
            self.left += asked
        if self.left < calls:
            self.short = True
            raise BudgetExhausted(f"The budget of the whole sweep is spent ({self.told}).")
        os.write(self._file, f"{calls}\n".encode())
        self.left, self.spent = self.left - calls, self.spent + calls

    def paid(self, usd: float) -> None:
        os.write(self._file, f"${usd!r}\n".encode())
        self.usd += usd

    def _ask(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # it must not be taken for an LM that failed
            raise StoreFailed(f"The budget of the sweep cannot be asked: {error}") from error


def read_spent(path: Path) -> tuple[int, float]:
    """Calls and US dollars that a cell has spent in all its lives."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    usd = [float(line[1:]) for line in lines if line.startswith("$")]
    return sum(int(line) for line in lines if not line.startswith("$")), sum(usd)

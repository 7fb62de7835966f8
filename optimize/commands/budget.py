"""One budget for many processes: calls handed out in slices, and exact.

What a process was granted and has not spent goes back when its work ends. Of one that was lost it
goes back when the work is resumed: each request is written down before it is sent.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from filelock import FileLock

from optimize.errors import BudgetExhausted, StoreFailed

SLICE = 32  # calls that a process is granted at once, while there are many


class Drawn(NamedTuple):
    """What was spent. usd: US dollars. tokens: read and written."""

    calls: int = 0
    usd: float = 0.0
    tokens: int = 0


class Ledger:
    """Who was granted how much, in a file. Several processes may work on it, where locks of files
    hold; a Ray actor is the only one to.

    calls, usd, tokens: the budget; None: no cap. Granted is never more in sum than there is, and
    nobody spends a call that it was not granted. US dollars and tokens are known when a call is
    answered, so those in flight may go beyond.
    """

    def __init__(
        self, path: Path, calls: int | None, usd: float | None, tokens: int | None = None
    ) -> None:
        self.path, self.calls = path, calls
        self.caps = {"usd": usd, "tokens": tokens}
        self.lock = FileLock(path.with_suffix(".lock"))

    def claim(self, name: str, drawn: Drawn) -> None:
        """One begins, or begins again, and has spent so much in its earlier lives."""
        self._set(lambda all_: all_.update({name: _entry(drawn.calls, drawn, True)}))

    def close(self, name: str, drawn: Drawn) -> None:
        """One has ended: what it was granted beyond that goes back."""
        self._set(lambda all_: all_.update({name: _entry(drawn.calls, drawn, False)}))

    def more(self, name: str, drawn: Drawn, least: int) -> int:
        """Calls granted beyond what was granted before: `least`, or more; 0 where so many are not
        left.
        """

        def grant(all_: dict[str, Any]) -> int:
            known = all_[name]["granted"]
            all_[name] = _entry(known, drawn, True)
            granted = self._slice(all_, least)
            all_[name]["granted"] += granted
            return granted

        return int(self._set(grant))

    def _slice(self, all_: dict[str, Any], least: int) -> int:
        """Halves what is left for each that is at work, so that at the end hardly any lies idle."""
        at_work = sum(one["open"] for one in all_.values())
        spent, granted = (sum(one[name] for one in all_.values()) for name in ("spent", "granted"))
        size = SLICE
        for name, cap in self.caps.items():
            used = sum(one[name] for one in all_.values())
            if cap is not None and used >= cap:
                return 0
            if cap is not None and used > 0 and spent:
                size = min(size, int((cap - used) * spent / used) // (2 * at_work))
        if self.calls is None:
            return max(least, size)
        left = self.calls - granted
        return max(least, min(size, left // (2 * at_work))) if left >= least else 0

    def _set(self, change: Callable[[dict[str, Any]], Any]) -> Any:
        with self.lock:
            all_ = json.loads(self.path.read_text()) if self.path.is_file() else {}
            found = change(all_)
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(all_))
            new.replace(self.path)  # whole, whenever the process is killed
        return found


def _entry(granted: int, drawn: Drawn, is_open: bool) -> dict[str, Any]:
    known = {"spent": drawn.calls, "usd": drawn.usd, "tokens": drawn.tokens}
    return {"granted": granted, **known, "open": is_open}


class Granting(Protocol):
    """A ledger, here or behind an actor."""

    def claim(self, name: str, drawn: Drawn) -> None: ...

    def close(self, name: str, drawn: Drawn) -> None: ...

    def more(self, name: str, drawn: Drawn, least: int) -> int: ...


class SharedPurse:
    """What one of many may spend: a `Purse` of its meter. Use as a context manager.

    told: what its end is told by. until: of the clock (time.time()). short: it was refused calls.
    Every request is written to a file before it is sent, and what an answer took after it: that
    outlives the process.
    """

    def __init__(
        self, ledger: Granting, name: str, path: Path, told: str, until: float = math.inf
    ) -> None:
        self.ledger, self.name, self.path, self.told = ledger, name, path, told
        self.until, self.drawn = until, read_drawn(path)
        self.left, self.short = 0, False

    def __enter__(self) -> SharedPurse:
        self._ask(lambda: self.ledger.claim(self.name, self.drawn))
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._ask(lambda: self.ledger.close(self.name, self.drawn))

    def take(self, calls: int) -> None:
        if self.left < calls and time.time() < self.until:
            need = calls - self.left
            self.left += self._ask(lambda: self.ledger.more(self.name, self.drawn, need))
        if self.left < calls or time.time() >= self.until:
            self.short = True
            raise BudgetExhausted(self.told)
        os.write(self._file, f"{calls}\n".encode())
        self.left -= calls
        self.drawn = self.drawn._replace(calls=self.drawn.calls + calls)

    def paid(self, usd: float, tokens: int) -> None:
        os.write(self._file, f"${usd!r} {tokens}\n".encode())
        calls, before, read = self.drawn
        self.drawn = Drawn(calls, before + usd, read + tokens)

    def _ask(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # it must not be taken for an LM that failed
            raise StoreFailed(f"The common budget cannot be asked: {error}") from error


def read_drawn(path: Path) -> Drawn:
    """What one has spent in all its lives."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    calls = sum(int(line) for line in lines if not line.startswith("$"))
    paid = [line[1:].split() for line in lines if line.startswith("$")]
    return Drawn(calls, sum(float(one[0]) for one in paid), sum(int(one[1]) for one in paid))

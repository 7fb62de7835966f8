"""The files that lie beside OUT: its lock, and who answered the rows in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from optimize.commands.answer import Found
from optimize.errors import WorkbenchError
from optimize.program.program import to_text
from optimize.report.answers import Columns, foreign
from optimize.report.shards import is_begun
from optimize.stats.records import Record


class About(Record):
    """Who answered the rows of a file: another program does not go on with it."""

    task: str
    program: str
    run: str | None
    lm: str
    columns: list[str]


def beside(out: Path, kind: str) -> Path:
    """A file of the command's own next to what it writes."""
    return out.with_name(f"{out.name}.{kind}")


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """No other command writes to OUT meanwhile."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = beside(out, "lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkbenchError(f"Another command is writing to {out}.") from None
    try:
        yield
    finally:
        with suppress(OSError):  # before it is let go of: it may be another's after that
            path.unlink()
        lock.release()


def check_ours(out: Path) -> None:
    """Raises WorkbenchError for a file that is there and that no such command has written."""
    if is_begun(out) and not beside(out, "about.json").is_file():
        raise WorkbenchError(
            f"{out} is there, and `optimize apply` has not written it. Give another --out."
        )


def check_about(out: Path, found: Found, columns: Columns, begun: bool) -> None:
    """Note who answers. begun: something of OUT is there, if not in it. Raises WorkbenchError where
    it was begun otherwise than it would be gone on with.
    """
    path = beside(out, "about.json")
    now = About(
        task=found.program.task.name,
        program=hashlib.sha256(to_text(found.program).encode()).hexdigest(),
        run=found.run,
        lm=found.config.lm,
        columns=list(columns.all),
    )
    if not path.is_file() or not (begun or is_begun(out)):
        path.write_text(now.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return
    before = About.model_validate_json(path.read_bytes())
    if before.columns != now.columns or before.task != now.task:
        raise foreign(out, "they have other columns, or were answered for another task")
    if before != now:
        raise WorkbenchError(
            f"{out} was begun by another program or LM (run {before.run or 'none'}, {before.lm}) "
            f"than would go on with it (run {now.run or 'none'}, {now.lm}). Give another --out, or "
            "--again to start it anew."
        )

"""The files that lie beside OUT: its lock, and who answered the rows in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from optimize import lm as lms
from optimize.commands.answer import Found
from optimize.errors import WorkbenchError
from optimize.lm.weights import identity
from optimize.program.program import to_text
from optimize.report.answers import Columns, foreign
from optimize.report.shards import is_begun
from optimize.secrets import redacted
from optimize.stats.records import Record

Say = Callable[[str], object]


class About(Record):
    """Who answered the rows of a file: another program does not go on with it. lm: its name, with
    what is in its file, and a temperature. at: its addresses, where any were given.
    """

    task: str
    program: str
    run: str | None
    lm: str
    columns: list[str]
    at: str | None = None


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


def _asked(found: Found) -> str:
    """The LM that answers; of a file what is in it, as its name says nothing of that."""
    config = found.config
    path = lms.gguf_path(config.lm)
    told = f"{config.lm} ({identity(path)[:12]})" if path and path.is_file() else config.lm
    return f"{told}, temperature {config.temperature:g}" if config.temperature else told


def check_about(out: Path, found: Found, columns: Columns, begun: bool, say: Say) -> None:
    """Note who answers. begun: something of OUT is there, if not in it. Raises WorkbenchError where
    it was begun otherwise than it would be gone on with.
    """
    path = beside(out, "about.json")
    now = About(
        task=found.program.task.name,
        program=hashlib.sha256(to_text(found.program).encode()).hexdigest(),
        run=found.run,
        lm=_asked(found),
        columns=list(columns.all),
        at=redacted(found.config.api_base or "") or None,
    )
    if not path.is_file() or not (begun or is_begun(out)):
        path.write_text(now.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return
    before = About.model_validate_json(path.read_bytes())
    if before.columns != now.columns or before.task != now.task:
        raise foreign(out, "they have other columns, or were answered for another task")
    if before.at != now.at:  # a server may be found elsewhere on another day
        usual = "the usual address"
        say(f"{out} was begun at {before.at or usual}; the rest is asked of {now.at or usual}.")
    if before.model_copy(update={"at": now.at}) != now:
        raise WorkbenchError(
            f"{out} was begun by another program or LM (run {before.run or 'none'}, {before.lm}) "
            f"than would go on with it (run {now.run or 'none'}, {now.lm}). Give another --out, or "
            "--again to start it anew."
        )

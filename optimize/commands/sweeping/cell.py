"""One cell of a sweep: a run like any other, with a home of its own, and a record of it.

The same here, in a Ray task, and in a job of Slurm or Kubernetes. A cell that is done is not run
again; one that was lost goes on from the cache and from what it had written down.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from optimize import stopping
from optimize.climb.observer import Observer
from optimize.commands.budget import Granting, Ledger, SharedPurse, read_drawn
from optimize.commands.explained import explained
from optimize.commands.run import run
from optimize.commands.session import Own, check_price, open_session
from optimize.commands.sweeping.plan import Cell, Sweep
from optimize.config import FILE, RunConfig, command_line
from optimize.errors import WorkbenchError
from optimize.files import write_whole
from optimize.report.record import Report
from optimize.report.sweep import CellFound, CellRecord
from optimize.stats.records import RowScores, ScoreRecord
from optimize.store.material import material
from optimize.store.open import client, own_store
from optimize.store.read import TEST_SCORES, Found

RECORD, SPENT = "cell.json", "spent.log"
LOOK = 0.5  # seconds between two looks at whether a cell is free


def ledger_of(sweep: Sweep) -> Ledger:
    sweep.folder.mkdir(parents=True, exist_ok=True)
    budget = sweep.file.budget
    return Ledger(sweep.folder / "budget.json", budget.calls, budget.usd)


def cell_numbered(sweep: Sweep, number: int) -> Cell:
    """Raises WorkbenchError where there is none."""
    if not 0 <= number < len(sweep.cells):
        raise WorkbenchError(
            f"{sweep.path}: no cell {number}; they are numbered 0 to {len(sweep.cells) - 1}. "
            "--dry-run lists them."
        )
    return sweep.cells[number]


def check_budget(sweep: Sweep, config: RunConfig) -> None:
    """Raises WorkbenchError for a budget in US dollars where an LM's price is not known."""
    if sweep.file.budget.usd:
        check_price(config.model_copy(update={"budget_usd": sweep.file.budget.usd}))


def on_record(sweep: Sweep, cell: Cell) -> CellRecord:
    """What is known of a cell: of one that was not run, or on other rows or knobs, nothing but
    what it has spent.
    """
    drawn = read_drawn(sweep.home(cell) / SPENT)
    paid = {"calls": drawn.calls, "usd": drawn.usd}
    nothing = _record(cell, **paid)
    try:
        text = (sweep.home(cell) / RECORD).read_text(encoding="utf-8")
        known = CellRecord.model_validate_json(text)
    except (OSError, ValidationError):
        return nothing
    # numbers and names change when the file gets more cells
    current = known.model_copy(update={"number": cell.number, "setting": cell.setting, **paid})
    return current if known.inputs == cell.inputs else nothing


def is_done(record: CellRecord) -> bool:
    """Whether it need not be run again: what failed is tried again, and so is what the budget has
    cut short.
    """
    return record.found is not None and not record.short


def run_cell(sweep: Sweep, cell: Cell, ledger: Granting, watch: Observer) -> CellRecord:
    """Run a cell, unless it is done; whatever becomes of it is its record.

    Raises KeyboardInterrupt where the command is stopped, StoreFailed where the budget cannot be
    asked.
    """
    home = sweep.home(cell)
    home.mkdir(parents=True, exist_ok=True)
    with _alone(home, watch):
        before = on_record(sweep, cell)
        if is_done(before):
            return before
        told = f"The budget of the whole sweep is spent ([budget] in {sweep.path.name})."
        with SharedPurse(ledger, cell.id, home / SPENT, told) as purse:
            (home / FILE).write_text(_toml(cell.config), encoding="utf-8")
            start = time.perf_counter()
            found = _found(sweep, cell, purse, watch)
        ended: dict[str, Any] = {"short": purse.short, "calls": purse.drawn.calls}
        ended |= {"usd": purse.drawn.usd, "seconds": round(time.perf_counter() - start, 1)}
        record = _record(cell, **found, **ended)
        write_whole(home / RECORD, record.model_dump_json(indent=1))
        return record


def _record(cell: Cell, **found: Any) -> CellRecord:
    return CellRecord(
        number=cell.number,
        id=cell.id,
        task=cell.task,
        lm=cell.config.lm,
        setting=cell.setting,
        seed=cell.config.seed,
        command=command_line("run", cell.task, cell.config.given),
        inputs=cell.inputs,
        **{"found": None, **found},
    )


def _toml(config: RunConfig) -> str:
    """Its knobs as a file, which makes its home a project for commands that look at runs."""
    knobs = config.model_dump(mode="json", exclude={"api_key"}, exclude_none=True)
    lines = [f"{knob} = {json.dumps(value)}" for knob, value in knobs.items()]
    return "\n".join(
        ["# Written by optimize sweep, for `optimize report` and others here.", *lines]
    )


def _found(sweep: Sweep, cell: Cell, purse: SharedPurse, watch: Observer) -> dict[str, Any]:
    """What the run has found, or what it failed with."""
    home = sweep.home(cell)
    own = Own(home, sweep.root if sweep.file.cache == "project" else home, purse)
    try:
        check_budget(sweep, cell.config)
        # the judge is the project's, wherever its runs are
        session = open_session(sweep.root, cell.task, cell.config, watch, own=own)
        with own_store():
            watch.counts(session.meter, session.config.in_flight)
            report = run(session)
            return {"found": _kept(home, report)}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the other cells go on
        line, code = explained(error, sweep.root)
        return {"error": line.removeprefix("Error: "), "code": code}


def _kept(home: Path, report: Report) -> CellFound:
    run_id = Path(report.program).stem
    stored = Found(client(home), run_id, report.task, run_id)
    scores: RowScores = stored.read(TEST_SCORES, RowScores)
    rung, val = _judged_on_val(report)
    return CellFound(
        run=run_id,
        verdict=report.verdict,
        target=report.target,
        target_met=report.target_met,
        val=val,
        test=report.final,
        zero_shot=report.test.zero_shot,
        levers=report.levers,
        gate_open=report.gate.open,
        rows=dict(zip(scores.rows, scores.programs["final"], strict=True)),
        price=material(stored).prices.get(rung),
        judge=report.judge.confusion if report.judge else None,
    )


def _judged_on_val(report: Report) -> tuple[str, ScoreRecord]:
    """The attempt whose program was kept, and its val score: the tuned one where that is accepted,
    as test has it.
    """
    if report.decision and report.decision.accepted:
        for attempt in report.attempts:
            if attempt.rung == report.decision.tuned and attempt.val:
                return attempt.rung, attempt.val
    return report.numbers.rung, report.numbers.best


@contextlib.contextmanager
def _alone(home: Path, watch: Observer) -> Iterator[None]:
    """One process at a time works on a cell: a lost worker's may still be at its last call."""
    lock, told = FileLock(home / ".lock"), False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not told:
                watch.noted(f"Cell {home.name} is at work in another process; waiting for it.")
            told = True
            stopping.wait(LOOK)
    try:
        yield
    finally:
        lock.release()

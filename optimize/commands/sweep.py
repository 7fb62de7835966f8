"""The use case `sweep`: tasks, LMs, seeds and knobs against each other, under one budget."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from optimize.climb.observer import Observer
from optimize.climb.plan import Plan, planned
from optimize.commands.run import calls_after
from optimize.commands.session import open_session
from optimize.commands.sweeping.cell import (
    cell_numbered,
    check_budget,
    is_done,
    ledger_of,
    on_record,
    run_cell,
)
from optimize.commands.sweeping.plan import Sweep
from optimize.errors import BUG, WorkbenchError
from optimize.report.html.sweep import sweep_page
from optimize.report.sweep import (
    CellRecord,
    PlannedCell,
    PlannedSweep,
    SweepRecord,
    compared,
)
from optimize.report.swept import markdown
from optimize.store.sweep import put_cells, put_sweep

PAGE = "sweep.html"


def plan(sweep: Sweep) -> PlannedSweep:
    """What each cell may take, and what is known of it already. Asks no LM.

    Raises WorkbenchError for a cell whose task, rows or knobs do not hold, or whose cap would be
    spent and leave no report.
    """
    known: dict[tuple[str, str], Plan] = {}
    judges: dict[str, set[str]] = defaultdict(set)
    found = []
    for cell in sweep.cells:
        config, task = cell.config, cell.task
        key = task, config.model_copy(update={"seed": 0}).model_dump_json()
        if key not in known:
            try:
                check_budget(sweep, config)
                session = open_session(sweep.root, task, config, Observer(), asks=False)
            except WorkbenchError as error:
                raise WorkbenchError(f"{sweep.path}, cell {cell.number}: {error}") from None
            judged = 0
            if session.judge:
                judged = len(session.judge.rows)
                judges[task].add(session.judge.told)
            plan = planned(session.task, session.splits, config, calls_after(session) + judged)
            known[key] = plan.model_copy(update={"least": plan.least + judged})
        cap = min(config.max_calls, sweep.file.budget.calls or config.max_calls)
        most, least = min(cap, known[key].most), known[key].least
        if cap < least:
            raise WorkbenchError(
                f"{sweep.path}, cell {cell.number} ({task}): {cap} LM calls cannot "
                f"pay for its val and test rows, which take {least}. Give more in [limits] or "
                "[budget], or use fewer rows: val_rows, test_rows in [grid]. No call was made."
            )
        record = on_record(sweep, cell)
        found.append(
            PlannedCell(
                number=cell.number,
                id=cell.id,
                task=task,
                setting=cell.setting,
                seed=config.seed,
                most=most,
                least=least,
                outcome=record.outcome,
            )
        )
    _check_judges(sweep, judges)
    share, budget = sweep.file.share, sweep.file.budget
    return PlannedSweep(
        name=sweep.name,
        cells=found,
        budget_calls=budget.calls,
        budget_usd=budget.usd,
        **share.model_dump(exclude={"retries"}),
    )


def _check_judges(sweep: Sweep, judges: Mapping[str, set[str]]) -> None:
    """Raises WorkbenchError where the cells of a task would have different judges."""
    for task, told in judges.items():
        if len(told) > 1:
            raise WorkbenchError(
                f"{sweep.path}: the cells of {task!r} would be judged by {' and by '.join(told)}; "
                "their scores would not compare. Name one judge_lm in [grid]. No call was made."
            )


def sweep_one(sweep: Sweep, number: int, watch: Observer) -> CellRecord:
    """One cell, in this process; on record as one of the sweep. Raises WorkbenchError where there
    is no such cell.
    """
    found = run_cell(sweep, cell_numbered(sweep, number), ledger_of(sweep), watch)
    put_cells(sweep.root, sweep.folder, [found])
    return found


def sweep_all(sweep: Sweep, watch: Observer, address: str | None = None) -> SweepRecord:
    """All cells that are not done yet, on Ray, and what all of them say together."""
    plan(sweep)  # before a machine is started
    records = {cell.number: on_record(sweep, cell) for cell in sweep.cells}
    missing = [number for number, record in records.items() if not is_done(record)]
    sweep.folder.mkdir(parents=True, exist_ok=True)
    put_cells(sweep.root, sweep.folder, [r for r in records.values() if is_done(r)])
    if missing:
        _run(sweep, missing, records, watch, address)
    return _concluded(sweep, [records[n] for n in sorted(records)])


def _run(
    sweep: Sweep,
    missing: Sequence[int],
    records: dict[int, CellRecord],
    watch: Observer,
    address: str | None,
) -> None:
    from optimize.commands.sweeping.cluster import Lost, run_cells

    watch.started(f"{len(missing)} of {len(records)} cells")
    watch.scored(0, len(missing))
    for done, ended in enumerate(run_cells(sweep, missing, address), 1):
        if isinstance(ended, Lost):
            record = on_record(sweep, sweep.cells[ended.number])
            ended = record.model_copy(update={"error": ended.why, "found": None, "code": BUG})
        records[ended.number] = ended
        put_cells(sweep.root, sweep.folder, [ended])
        score = f" {ended.found.test}" if ended.found else f": {ended.error}"
        watch.noted(
            f"cell {ended.number} {ended.task}, {ended.setting}, seed {ended.seed}: "
            f"{ended.outcome}{score} ({ended.calls} calls)"
        )
        watch.scored(done, len(missing))


def _concluded(sweep: Sweep, cells: list[CellRecord]) -> SweepRecord:
    """The comparison, written beside the cells and to the project's store."""
    page = sweep.folder / PAGE
    record = SweepRecord(
        name=sweep.name,
        file=os.path.relpath(sweep.path),
        cells=cells,
        tasks=compared(cells),
        budget_calls=sweep.file.budget.calls,
        budget_usd=sweep.file.budget.usd,
        calls=sum(cell.calls for cell in cells),
        usd=sum(cell.usd for cell in cells),
        page=str(page.relative_to(sweep.root)),
        run=put_cells(sweep.root, sweep.folder, []),
    )
    made = time.strftime("%Y-%m-%d %H:%M")
    page.write_text(sweep_page(record, made), encoding="utf-8")
    put_sweep(sweep.root, sweep.folder, record, markdown(record), page)
    return record

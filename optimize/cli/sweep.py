"""`optimize sweep`: many runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli.app import Debug, Json, app, example, guarded, print_found, project


@app.command(epilog=example("optimize sweep nightly.toml --dry-run"))
def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.toml", help="tasks, LMs, seeds, knobs")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the cells with their calls, and end")
    ] = False,
    cell: Annotated[
        int | None, typer.Option(help="run this cell alone, without Ray: for a job of a cluster")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="of a running Ray cluster; default: one is started here for this command"
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Run each task with each LM, seed and knob of SWEEP.toml, under one budget, and compare. Cells
    that are done are not run again.
    """

    def work() -> int:
        root, _ = project({})
        from optimize.cli.screen import Screen
        from optimize.commands import sweep as sweeping
        from optimize.commands.sweeping.plan import read_sweep
        from optimize.errors import WorkbenchError
        from optimize.report import sweep_screen

        if cell is not None and address:
            raise WorkbenchError("--cell runs without Ray; leave --address out.")
        read = read_sweep(root, file)
        if dry_run:
            planned = sweeping.plan(read)
            print_found(planned, sweep_screen.planned_shown(planned), json)
            return 0
        with Screen() as screen:
            if cell is not None:
                one = sweeping.sweep_one(read, cell, screen)
            else:
                found = sweeping.sweep_all(read, screen, address)
        if cell is not None:
            print_found(one, sweep_screen.cell_shown(one), json)
            return one.code or int(not (one.found and one.found.target_met))
        print_found(found, sweep_screen.sweep_shown(found), json)
        return int(not found.target_met)

    guarded(debug, work)

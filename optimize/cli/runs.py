"""Commands that look into runs: list, prompts, rows."""

from __future__ import annotations

from typing import Annotated

import typer

from optimize.cli.app import Debug, Json, OptionalTask, app, example, guarded, print_found

Limit = Annotated[int, typer.Option(min=0, help="show at most so many; 0: all")]


@app.command(epilog=example("optimize runs tickets --limit 5"))
def runs(
    task: OptionalTask = None, limit: Limit = 20, json: Json = False, debug: Debug = False
) -> None:
    """List the runs of TASK, or of all tasks, newest first."""

    def work() -> int:
        from optimize.cli.screen import plain_console
        from optimize.commands.runs import all_runs
        from optimize.config import find_root
        from optimize.report.looks import runs_shown

        found = all_runs(find_root(), task, limit)
        print_found(found, runs_shown(found, plain_console().width), json)
        return 0

    guarded(debug, work)

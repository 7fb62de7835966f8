"""Commands that look into runs: list, prompts, rows."""

from __future__ import annotations

from typing import Annotated

import typer

from optimize.cli import complete
from optimize.cli.app import (
    Debug,
    Json,
    OptionalTask,
    ProgramName,
    app,
    example,
    guarded,
    named,
    print_found,
)

OtherProgram = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", parser=named, autocompletion=complete.programs, help="the other, newer one"
    ),
]
Rows = Annotated[int, typer.Option("--limit", min=0, help="rows shown of each kind; 0: all")]
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


@app.command(epilog=example("optimize show tickets~demo_search"))
def show(program: ProgramName, json: Json = False, debug: Debug = False) -> None:
    """Show the prompt as the LM gets it on a val row, what it scores, and how it is made."""

    def work() -> int:
        from optimize.commands import show as showing
        from optimize.config import find_root
        from optimize.report.looks import shown

        found = showing.show(find_root(), program)
        print_found(found, shown(found), json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize diff tickets~1 tickets"))
def diff(
    before: ProgramName,
    after: OtherProgram = None,
    limit: Rows = 5,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What changed between two prompts, and the val rows that it fixed and broke.

    RUN alone: its best prompt against its zero-shot one. RUN~rung alone: against the prompt that
    the rung was built on.
    """

    def work() -> int:
        from optimize.commands import diff as comparing
        from optimize.config import find_root
        from optimize.report.looks import difference

        found = comparing.diff(find_root(), before, after)
        print_found(found, difference(found, limit), json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize failures tickets --limit 10"))
def failures(
    program: ProgramName, limit: Rows = 5, json: Json = False, debug: Debug = False
) -> None:
    """The val rows that the best prompt of RUN, or RUN~rung, gets wrong, by kind. Asks no LM."""

    def work() -> int:
        from optimize.commands import failures as failing
        from optimize.config import find_root
        from optimize.report.looks import wrong_rows

        found = failing.failures(find_root(), program)
        print_found(found, wrong_rows(found, limit), json)
        return 0

    guarded(debug, work)

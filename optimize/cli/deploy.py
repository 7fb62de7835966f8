"""Commands that bring a result into use: written as a folder, made champion, served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from optimize.cli.app import (
    Debug,
    Json,
    RunName,
    TaskName,
    app,
    example,
    guarded,
    print_found,
)

Reason = Annotated[str, typer.Option(help="why; kept on record", show_default=False)]
Form = Literal["folder", "mlflow", "prompt", "openai-eval", "promptfoo"]


@app.command(epilog=example("optimize export tickets ./tickets-program"))
def export(
    task: TaskName,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new or empty")],
    form: Annotated[
        Form,
        typer.Option(
            "--as",
            help="folder: runs by itself with dspy; mlflow: a model folder; prompt: text and "
            "messages; openai-eval, promptfoo: val rows with asserts",
        ),
    ] = "folder",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the best program of TASK into DIR, for those who do not have optimize."""

    def work() -> int:
        from optimize.commands import export as exporting
        from optimize.config import find_root
        from optimize.report.export import exported_lines

        found = exporting.export(find_root(), task, folder, form)
        print_found(found, "\n".join(exported_lines(found)), json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize promote tickets~1 --reason 'steadier on long messages'"))
def promote(run: RunName, reason: Reason = "", json: Json = False, debug: Debug = False) -> None:
    """Make the program of RUN its task's champion: what is loaded, served and exported.

    Refused where the test rows that both were asked do not show that it is better, unless --reason
    says why.
    """

    def work() -> int:
        from optimize.commands import promote as promoting
        from optimize.config import find_root
        from optimize.report.promotion import promoted_lines

        found = promoting.promote(find_root(), run, reason)
        print_found(found, "\n".join(promoted_lines(found)), json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize rollback tickets --reason 'complaints about refunds'"))
def rollback(task: TaskName, reason: Reason = "", json: Json = False, debug: Debug = False) -> None:
    """Make the champion of TASK the one that was it before."""

    def work() -> int:
        from optimize.commands import promote as promoting
        from optimize.config import find_root
        from optimize.report.promotion import promoted_lines

        found = promoting.rollback(find_root(), task, reason)
        print_found(found, "\n".join(promoted_lines(found)), json)
        return 0

    guarded(debug, work)

"""Commands that bring a result into use: written as a folder, made champion, served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from optimize.cli.app import Debug, Json, TaskName, app, example, guarded, print_found

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

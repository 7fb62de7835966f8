"""Commands that start something: a project, a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli.app import Debug, app, guarded


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="of the project", show_default=False)
    ] = Path("."),
    example: Annotated[
        list[str] | None,
        typer.Option(help="copy an example task too: its name, or all; repeatable"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Start a project in DIR: programs/, devsets/, optimize.toml with every knob, .gitignore."""

    def work() -> int:
        from optimize.commands.init import example_names, write_project

        names = example_names(example or [])
        for line in write_project(folder, names):
            typer.echo(line)
        typer.echo("Next:")
        if folder.resolve() != Path.cwd():
            typer.echo(f"  cd {folder}")
        for name in names[:1]:
            typer.echo(f"  optimize check {name}\n  optimize run {name}")
        if not names:
            typer.echo("  optimize new NAME     (or: optimize init --example tickets)")
        return 0

    guarded(debug, work)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="name of the task: letters, digits, underscores")],
    debug: Debug = False,
) -> None:
    """Write a new task: programs/NAME.py and devsets/NAME/ with a small runnable example."""

    def work() -> int:
        from optimize.commands.new import write_task
        from optimize.config import find_root

        for path in write_task(find_root(), name):
            typer.echo(f"Wrote {path}")
        typer.echo(f"Next: optimize run {name}")
        return 0

    guarded(debug, work)

"""Commands that start something: a project, a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli.app import (
    ApiBase,
    Debug,
    Lm,
    TaskName,
    Teacher,
    TeacherBase,
    app,
    example,
    guarded,
    knobs,
    project,
)


@app.command(epilog=example("optimize init cafe --example order_slip"))
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


@app.command(epilog=example("optimize new refund_reason"))
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


@app.command(epilog=example("optimize guide tickets --teacher openai/gpt-4.1"))
def guide(
    task: TaskName,
    lm: Lm = None,
    teacher: Teacher = None,
    api_base: ApiBase = None,
    teacher_api_base: TeacherBase = None,
    debug: Debug = False,
) -> None:
    """Draft the labelling guide of TASK from its train rows, for a person to edit: one LM call."""
    flags = knobs(locals())

    def work() -> int:
        root, config = project(flags)
        from optimize.climb.observer import Observer
        from optimize.commands.guide import draft_guide
        from optimize.commands.session import open_session

        path, rows = draft_guide(open_session(root, task, config, Observer()))
        typer.echo(f"Wrote {path} from {rows} train rows")
        typer.echo(f"Next: mend it, save it as {path.with_name('GUIDE.md')}, optimize run {task}")
        return 0

    guarded(debug, work)

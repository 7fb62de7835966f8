"""Commands that start something: a project, a task."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from optimize.cli.app import (
    ApiBase,
    BudgetUsd,
    Context,
    Debug,
    Json,
    Lm,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    Seed,
    TaskName,
    Teacher,
    TeacherBase,
    Threads,
    Timeout,
    app,
    example,
    guarded,
    knobs,
    print_found,
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
            typer.echo(f"  cd {shlex.quote(str(folder))}")
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


Rows = Annotated[
    int,
    typer.Option(min=1, help="how many usable synthetic rows are wanted, those there are included"),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="the plan and the first prompt; asks no LM")
]


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
        from optimize.config import command_line

        path, rows = draft_guide(open_session(root, task, config, Observer()))
        typer.echo(f"Wrote {path} from {rows} train rows")
        following = command_line("run", task, config.given)
        typer.echo(f"Next: mend it, save it as {path.with_name('GUIDE.md')}, {following}")
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize synthesize tickets --rows 100 --dry-run"))
def synthesize(
    task: TaskName,
    rows: Rows,
    dry_run: DryRun = False,
    lm: Lm = None,
    teacher: Teacher = None,
    api_base: ApiBase = None,
    teacher_api_base: TeacherBase = None,
    context: Context = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    budget_usd: BudgetUsd = None,
    max_minutes: MaxMinutes = None,
    seed: Seed = None,
    threads: Threads = None,
    timeout: Timeout = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Have the teacher write train rows for TASK, checked and marked; the same command goes on."""
    flags = knobs(locals())
    flags.pop("rows")

    def work() -> int:
        root, config = project(flags)
        from optimize.cli.screen import Screen
        from optimize.commands import synthesize as writing
        from optimize.commands.session import open_session
        from optimize.config import command_line
        from optimize.report.synthesis import plan_shown, synthesis_shown

        with Screen() as screen:
            session = open_session(root, task, config, screen, asks=not dry_run)
            if dry_run:
                plan, prompt = writing.plan(session, rows)
            else:
                screen.counts(session.meter, config.in_flight)
                found = writing.synthesize(session, rows)
        if dry_run:
            print_found(plan, plan_shown(plan, prompt), json)
            return 0
        following = command_line("run", task, config.given)
        print_found(found, synthesis_shown(found, following), json)
        return 0 if found.total >= rows else 1

    guarded(debug, work)

"""Commands that use what was found, and that say whether all is there to find it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from optimize.cli.app import (
    ApiBase,
    ClimbedLm,
    Debug,
    Json,
    Lm,
    TaskName,
    app,
    example,
    guarded,
    joined,
    print_found,
    project,
)


@app.command("try", epilog=example('optimize try tickets "My invoice is wrong."'))
def try_(
    task: TaskName,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT", help="the input, where the task has one; - reads it from stdin"
        ),
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="an input by name; repeatable")
    ] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="show the prompt as it is sent")] = False,
    lm: ClimbedLm = None,
    api_base: ApiBase = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer one input by the best program of TASK: answer, confidence, demos, what it took."""

    base = joined(api_base)

    def work() -> int:
        root, _ = project({})
        from optimize.commands.answer import answer
        from optimize.report.looks import answered

        found = answer(root, task, _inputs(text, field or []), lm=lm, api_base=base)
        print_found(found, answered(found, prompt), json)
        return 1 if found.unread is not None else 0

    guarded(debug, work)


def _inputs(text: str | None, fields: list[str]) -> dict[str, str] | str:
    """The input as it was given."""
    if bool(fields) == (text is not None):
        raise typer.BadParameter('give the input as "TEXT", or each of them as --field NAME=VALUE')
    if text is not None:
        return sys.stdin.read().strip() if text == "-" else text
    pairs = [field.partition("=") for field in fields]
    for name, sign, _ in pairs:
        if not sign:
            raise typer.BadParameter(f"--field {name}: write it as NAME=VALUE")
    return {name: value for name, _, value in pairs}


@app.command(epilog=example("optimize doctor --no-call"))
def doctor(
    no_call: Annotated[
        bool, typer.Option("--no-call", help="do not ask the LM, which takes one short call")
    ] = False,
    lm: Lm = None,
    api_base: ApiBase = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What works here and what is missing for what: versions, LM, store, disk, models."""

    base = joined(api_base)

    def work() -> int:
        from optimize.commands.doctor import checkup
        from optimize.config import find_root
        from optimize.report.looks import checks_shown

        found = checkup(find_root(), call=not no_call, lm=lm, api_base=base)
        print_found(found, checks_shown(found), json)
        from optimize.errors import MISTAKE

        return MISTAKE if found.failed else 0

    guarded(debug, work)


@app.command(epilog=example("optimize cache --json"))
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="delete all that is kept: it will be asked again")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What is kept of LMs' answers and embedders' vectors, and how much room that takes."""

    def work() -> int:
        from optimize.commands.cache import caches
        from optimize.config import find_root

        found = caches(find_root(), clear)
        lines = []
        for one in found.caches:
            lines += [f"{one.path}: {one.count} {one.what}, {one.bytes / 1e6:.1f} MB"]
            lines += [f"{one.path}: cleared"] if clear and one.count else []
        typer.echo("\n".join(lines), err=json)  # a console would break the paths
        if json:
            typer.echo(found.model_dump_json(indent=1))
        return 0

    guarded(debug, work)

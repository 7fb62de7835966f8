"""`optimize label`: which rows to label next, and a person labels them."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from optimize.cli.app import (
    ApiBase,
    BudgetUsd,
    ClimbedLm,
    Debug,
    Json,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    Seed,
    TaskName,
    Threads,
    Timeout,
    app,
    example,
    guarded,
    joined,
    knobs,
    print_found,
    project,
)

OWN = ("rows", "next", "ask", "no_lm", "page", "port", "again", "out", "lm", "api_base")


@app.command(epilog=example("optimize label tickets mails.jsonl --next 20 --page"))
def label(
    task: TaskName,
    rows: Annotated[
        Path,
        typer.Argument(metavar="ROWS", help="rows without labels: .jsonl, .csv or .parquet"),
    ],
    next: Annotated[int, typer.Option(min=1, max=1000, help="rows to label")] = 20,
    ask: Annotated[
        int, typer.Option(min=8, max=2000, help="rows that the programs are asked at most")
    ] = 200,
    no_lm: Annotated[
        bool, typer.Option("--no-lm", help="ask no LM: choose only by how different rows are")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="label on a page in the browser, on this machine alone")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the page; 0: a free one")] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="choose anew, though rows chosen before are left")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="write the chosen rows, outputs empty, to a .jsonl file"),
    ] = None,
    lm: ClimbedLm = None,
    api_base: ApiBase = None,
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
    """Choose the rows of ROWS that are worth a label most, and label them here or on a page.

    Chosen are those that the best programs of TASK answer differently, of all kinds of rows. Labels
    go to train alone. With --json or --out the rows are listed or written, and nobody is asked.
    """
    flags = knobs({k: v for k, v in locals().items() if k not in OWN})

    def work() -> int:
        from optimize.commands.label import Wish
        from optimize.commands.labelling import Sitting
        from optimize.config import command_line
        from optimize.report.labelling import RANDOM, labelled_shown
        from optimize.task import load_task

        root, _ = project({})
        wish = Wish(task, rows, next, ask, no_lm, lm, joined(api_base), flags)
        sitting = Sitting(load_task(task, root))
        if json or out:
            _listed(root, wish, sitting, out, json)
            return 0
        with sitting.alone():
            if sitting.goes_on(rows) and not again:
                left = sitting.found().left
                typer.echo(f"Chosen before: {left} rows left; --again chooses anew. {RANDOM}")
            else:
                sitting.begin(rows, _chosen(root, wish, sitting, tell=True))
            _on_a_page(sitting, port) if page else _here(sitting)
        found, following = sitting.found(), shlex.join(["optimize", "label", task, str(rows)])
        if found.in_all:
            following = command_line("run", task, project({}, climbed=task)[1].given)
        print_found(found, labelled_shown(found, following), json)
        return 0

    guarded(debug, work)


def _chosen(root: Path, wish: Any, sitting: Any, tell: bool) -> Any:
    from optimize.cli.screen import Screen
    from optimize.commands.label import choose
    from optimize.report.labelling import choice_lines

    with Screen() as screen:
        found = choose(root, wish, screen, sitting.skipped)
        for line in choice_lines(found.choice) if tell else ():
            screen.noted(line)
    return found


def _listed(root: Path, wish: Any, sitting: Any, out: Path | None, json: bool) -> None:
    """The chosen rows on the screen, or in a file."""
    from optimize.commands.labelling import check_blank, write_blank
    from optimize.report.labelling import choice_shown, elsewhere

    if out:
        check_blank(out)
    found = _chosen(root, wish, sitting, tell=False).choice
    if out:
        write_blank(sitting.task, found, out)
    print_found(found, choice_shown(found, sitting.task), json)
    typer.echo(elsewhere(sitting.task, str(out or "Label them elsewhere")), err=True)


def _on_a_page(sitting: Any, port: int) -> None:
    from optimize.serving.labelling import label_page

    def say(address: str) -> None:
        typer.echo(f"Label at {address}; Ctrl-C ends it. Every answer is kept as you give it.")

    label_page(sitting, port, say)


class _Quit(Exception):
    """The person wants to stop."""


class _Skip(Exception):
    """The person cannot tell."""


class _Back(Exception):
    """The person wants the row before once more."""


COMMANDS = {"skip": _Skip, "back": _Back, "quit": _Quit}


def _here(sitting: Any) -> None:
    """Ask for each row in the terminal."""
    typer.echo("skip: cannot tell; back: the row before once more; quit. Answers are kept at once.")
    number = _open(sitting, 0)
    with suppress(_Quit, typer.Abort):
        while number is not None:
            number = _after(sitting, number)


def _after(sitting: Any, number: int) -> int | None:
    """The row to show next, once the person has said what this one is. Raises _Quit."""
    try:
        sitting.label(number, _asked(sitting, number))
    except _Skip:
        sitting.skip(number)
    except _Back:
        return max(number - 1, 0)
    found = _open(sitting, number + 1)
    return number if found is None and _slipped() else found


def _slipped() -> bool:
    """Whether the person wants the last row once more."""
    told = "All rows are done. Enter ends; back: the last row once more"
    text: str = typer.prompt(told, default="", show_default=False)
    return text.strip().removeprefix("/") == "back"


def _open(sitting: Any, start: int) -> int | None:
    """The first row from there that has no label and was not skipped."""
    return next((n for n in range(start, len(sitting.work)) if sitting.work[n].open), None)


def _asked(sitting: Any, number: int) -> dict[str, str]:
    """What the person says of a row. Raises _Skip, _Back or _Quit."""
    from optimize.cli.screen import plain_console
    from optimize.data.excerpts import shown_fields
    from optimize.report.labelling import output_shown, row_shown

    work, console = sitting.work[number], plain_console()
    at = f"Row {number + 1} of {len(sitting.work)}"
    console.print(row_shown(sitting.task, work.columns, work.place, at))
    if work.label is not None:
        console.print(f"It is labelled {shown_fields(work.label)}; skip keeps that.", style="dim")
    typed = {}
    for name in sitting.task.signature.output_fields:
        console.print(output_shown(sitting.task, name))
        typed[name] = _value(sitting.task, name)
    return typed


def _value(task: Any, name: str) -> str:
    """One output as it was typed, once it fits; a label's number stands for it."""
    from optimize.data.read import read_output
    from optimize.errors import WorkbenchError
    from optimize.report.labelling import by_number

    labels, numbers = by_number(task, name)
    while True:
        text: str = typer.prompt(name, default="", show_default=False).strip()
        if text not in labels:
            if text.removeprefix("/") in COMMANDS:
                raise COMMANDS[text.removeprefix("/")]
            text = numbers.get(text, text)
        try:
            read_output(task, name, text)
            return text
        except WorkbenchError as error:
            typer.secho(str(error), fg="yellow")

"""`optimize apply`: the best program of a task on rows of any number."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from optimize.cli.app import (
    ApiBase,
    Batch,
    BudgetUsd,
    ClimbedLm,
    Debug,
    Json,
    MaxMinutes,
    MaxTokens,
    TaskName,
    Threads,
    Timeout,
    app,
    example,
    guarded,
    joined,
    print_found,
    project,
)

Calls = Annotated[
    int | None,
    typer.Option(help="hard cap on LM calls; default: four a row for each its program makes"),
]


@app.command(epilog=example("optimize apply tickets mails.csv --out answered.jsonl --below 0.6"))
def apply(
    task: TaskName,
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS",
            help="a .jsonl, .csv or .parquet file with the task's inputs; - reads JSON lines from "
            "stdin",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="a .jsonl or .csv file, or a folder for Parquet files",
            show_default=False,
        ),
    ],
    pilot: Annotated[
        bool, typer.Option("--pilot", help="answer the first rows, forecast the rest, and end")
    ] = False,
    below: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="rows less sure than this, or failed, go to OUT.review.jsonl as well"
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="start OUT anew; what was answered is cached")
    ] = False,
    batch: Batch = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="by several workers on Ray; rows in Parquet")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="with --ray: processes that answer; default: one a core"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="with --ray: address of a running Ray cluster; default: one is started here"
        ),
    ] = None,
    lm: ClimbedLm = None,
    api_base: ApiBase = None,
    max_calls: Calls = None,
    max_tokens: MaxTokens = None,
    budget_usd: BudgetUsd = None,
    max_minutes: MaxMinutes = None,
    threads: Threads = None,
    timeout: Timeout = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer all rows of a file by the best program of TASK; the same command again goes on."""
    flags = {
        **{"lm": lm, "api_base": joined(api_base)},
        **{"max_calls": max_calls, "max_tokens": max_tokens},
        **{"budget_usd": budget_usd, "max_minutes": max_minutes, "threads": threads},
        "timeout": timeout,
    }

    def work() -> int:
        root, _ = project({})
        from optimize.cli.screen import Screen
        from optimize.commands.apply import Wish
        from optimize.commands.apply import apply as applied
        from optimize.commands.applying.on_ray import OnRay
        from optimize.errors import WorkbenchError
        from optimize.report.applied import applied_shown

        if (workers or address) and not ray:
            raise WorkbenchError("--workers and --address are for --ray; give it too.")
        if ray and batch:
            raise WorkbenchError("--ray and --batch are two ways; give one of them.")
        on_ray = OnRay(workers, address) if ray else None
        with _spooled(rows) as path, Screen() as screen:
            wish = Wish(task, path, out, flags, pilot, below, again, bool(batch), on_ray)
            found = applied(root, wish, screen)
        print_found(found, applied_shown(found), json)
        return 0

    guarded(debug, work)


@contextlib.contextmanager
def _spooled(rows: Path) -> Iterator[Path]:
    """The file itself; what comes from stdin is put into one first, since it is counted."""
    if str(rows) != "-":
        yield rows
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin.jsonl"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path

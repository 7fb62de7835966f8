"""Commands that ask whether the result still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli import complete
from optimize.cli.app import (
    ApiBase,
    Batch,
    BudgetUsd,
    ClimbedLm,
    ClimbedTarget,
    Debug,
    Json,
    JudgeBase,
    JudgeLm,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    Repeats,
    Seed,
    TaskName,
    TestRows,
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

Lms = Annotated[
    list[str] | None,
    typer.Option(
        autocompletion=complete.lms,
        help="another LM to ask; repeatable; default: the one the program was optimized on",
    ),
]
ApiBases = Annotated[
    list[str] | None,
    typer.Option(
        help="address of its endpoint: one for all --lm, or one for each (none for none), several "
        "of one LM with commas between them, or @FILE"
    ),
]


@app.command(epilog=example("optimize recheck tickets --lm openai/gpt-4.1-mini --max-calls 500"))
def recheck(
    task: TaskName,
    lm: Lms = None,
    api_base: ApiBases = None,
    target: ClimbedTarget = None,
    judge_lm: JudgeLm = None,
    judge_api_base: JudgeBase = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    budget_usd: BudgetUsd = None,
    max_minutes: MaxMinutes = None,
    test_rows: TestRows = None,
    repeats: Repeats = None,
    batch: Batch = None,
    threads: Threads = None,
    timeout: Timeout = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask the test rows of the best program of TASK again, today or of another LM: is it still at
    the target?
    """
    flags = knobs(locals())
    flags.pop("lm"), flags.pop("api_base")
    names, bases = lm or [], api_base or []

    def work() -> int:
        from datetime import date

        from optimize.cli.screen import Screen
        from optimize.commands import recheck as checking
        from optimize.commands.in_use import in_use
        from optimize.report.looks import rechecked

        with Screen() as screen:
            root, _ = project({})
            asked = checking.asked_lms(names, bases)
            program, configs = in_use(root, task, flags, screen, asked)
            screen.counts(program.session.meter, configs[0].in_flight)
            found = checking.recheck(program, configs)
        print_found(found, rechecked(found, date.today()), json)
        return 0 if found.at_target else 1

    guarded(debug, work)


@app.command(epilog=example("optimize monitor tickets this-week.jsonl --ask 100"))
def monitor(
    task: TaskName,
    rows: Annotated[
        Path,
        typer.Argument(help="newly collected rows, labelled or not: .jsonl, .csv or .parquet"),
    ],
    ask: Annotated[
        int, typer.Option(min=0, help="rows the LM is asked at most, labelled ones first; 0: none")
    ] = 400,
    lm: ClimbedLm = None,
    api_base: ApiBase = None,
    target: ClimbedTarget = None,
    judge_lm: JudgeLm = None,
    judge_api_base: JudgeBase = None,
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
    """Does the best program of TASK still hold on ROWS collected since? ok, relabel, re-optimize,
    retrain or cannot tell, and why.
    """
    flags = knobs(locals())
    for name in ("rows", "ask", "lm", "api_base"):
        flags.pop(name)

    def work() -> int:
        from datetime import date

        from optimize.cli.screen import Screen
        from optimize.commands import monitor as watching
        from optimize.commands.in_use import in_use
        from optimize.report.looks import monitored

        with Screen() as screen:
            root, _ = project({})
            program, (config,) = in_use(root, task, flags, screen, [(lm, joined(api_base))])
            screen.counts(program.session.meter, config.in_flight)
            found = watching.monitor(program, config, rows, ask)
        print_found(found, monitored(found, date.today()), json)
        return 0 if found.verdict == "ok" else 1

    guarded(debug, work)

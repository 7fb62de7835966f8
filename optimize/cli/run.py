"""Commands that make a climb: check before it, run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from optimize.cli.app import (
    ApiBase,
    Batch,
    BudgetUsd,
    Context,
    Debug,
    Details,
    Embedder,
    EmbedderBase,
    Epochs,
    FinetuneBase,
    Gpus,
    Grid,
    Json,
    JudgeBase,
    JudgeLm,
    Lm,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    Method,
    NoRegressionOn,
    Output,
    Repeats,
    Replay,
    Seed,
    Target,
    TaskName,
    Teacher,
    TeacherBase,
    Temperature,
    TestRows,
    Threads,
    Timeout,
    ValRows,
    Waive,
    Without,
    app,
    example,
    guarded,
    knobs,
    print_found,
    project,
    reported,
)

Headroom = Annotated[
    bool | None,
    typer.Option(
        "--headroom",
        help="short of the target: could the best of 5 answers, or the teacher, reach it?",
    ),
]
Finetune = Annotated[
    str | None, typer.Option(help="on a plateau below target: bundle, lora, trl, openai or never")
]


RowsToCome = Annotated[
    int | None,
    typer.Option("--rows", min=1, help="also estimate what answering so many rows would cost"),
]


@app.command(epilog=example("optimize check tickets --max-calls 2000"))
def check(
    task: TaskName,
    rows: RowsToCome = None,
    target: Target = None,
    lm: Lm = None,
    teacher: Teacher = None,
    api_base: ApiBase = None,
    teacher_api_base: TeacherBase = None,
    judge_lm: JudgeLm = None,
    judge_api_base: JudgeBase = None,
    context: Context = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    budget_usd: BudgetUsd = None,
    max_minutes: MaxMinutes = None,
    seed: Seed = None,
    threads: Threads = None,
    timeout: Timeout = None,
    temperature: Temperature = None,
    repeats: Repeats = None,
    batch: Batch = None,
    headroom: Headroom = None,
    finetune: Finetune = None,
    method: Method = None,
    replay: Replay = None,
    epochs: Epochs = None,
    gpus: Gpus = None,
    finetune_base: FinetuneBase = None,
    grid: Grid = None,
    no_regression_on: NoRegressionOn = None,
    waive: Waive = None,
    embedder: Embedder = None,
    embedder_api_base: EmbedderBase = None,
    val_rows: ValRows = None,
    test_rows: TestRows = None,
    without: Without = None,
    json: Json = False,
    details: Details = False,
    debug: Debug = False,
) -> None:
    """What the rows of TASK can and cannot tell, and what a run with these flags may cost. Asks
    no LM.
    """
    flags = knobs(locals())
    flags.pop("rows")

    def work() -> int:
        root, config = project(flags)
        from optimize.climb.observer import Observer
        from optimize.commands.costs import costs
        from optimize.commands.run import checked, low_cap
        from optimize.commands.session import open_session
        from optimize.config import command_line
        from optimize.report.costs import Checked, costs_shown
        from optimize.report.text import checks

        session = open_session(root, task, config, Observer(), asks=False)
        found = checked(session)
        problem = low_cap(session, found)
        plan, given = found.cost.plan, config.given
        if plan.hopeless and (fewer := plan.fewer_rows):
            given |= {"val_rows": fewer.val, "test_rows": fewer.test}
        following = problem or f"Next: {command_line('run', task, given)}"
        applying = costs(session, rows) if rows else None
        more = costs_shown(applying, task) if applying else []
        shown = checks(found, session.target, task, following, details, more)
        whole = Checked(**vars(found), low_cap=problem, applying=applying)
        print_found(whole, shown, json)
        return 1 if problem or any(f.problem for f in found.findings) else 0

    guarded(debug, work)


@app.command(epilog=example("optimize run tickets --target 0.9 --max-minutes 30"))
def run(
    task: TaskName,
    target: Target = None,
    lm: Lm = None,
    teacher: Teacher = None,
    api_base: ApiBase = None,
    teacher_api_base: TeacherBase = None,
    judge_lm: JudgeLm = None,
    judge_api_base: JudgeBase = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    budget_usd: BudgetUsd = None,
    max_minutes: MaxMinutes = None,
    seed: Seed = None,
    threads: Threads = None,
    timeout: Timeout = None,
    temperature: Temperature = None,
    context: Context = None,
    repeats: Repeats = None,
    batch: Batch = None,
    headroom: Headroom = None,
    finetune: Finetune = None,
    method: Method = None,
    replay: Replay = None,
    finetune_base: FinetuneBase = None,
    epochs: Epochs = None,
    gpus: Gpus = None,
    grid: Grid = None,
    no_regression_on: NoRegressionOn = None,
    waive: Waive = None,
    embedder: Embedder = None,
    embedder_api_base: EmbedderBase = None,
    val_rows: ValRows = None,
    test_rows: TestRows = None,
    without: Without = None,
    json: Json = False,
    details: Details = False,
    debug: Debug = False,
) -> None:
    """Climb the ladder until TASK reaches its target or prompting has plateaued; then test once."""
    flags = knobs(locals())

    def use_case(session: Any) -> Any:
        from optimize.commands.run import run

        return run(session)

    reported(task, flags, Output(json, details, debug), use_case)

"""Commands that make a climb: check before it, run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from optimize.cli.app import (
    ApiBase,
    Debug,
    Details,
    Epochs,
    FinetuneBase,
    Json,
    Lm,
    MaxCalls,
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
    ValRows,
    Waive,
    app,
    guarded,
    knobs,
    print_found,
    project,
    reported,
)


@app.command()
def check(
    task: TaskName,
    target: Target = None,
    lm: Lm = None,
    max_calls: MaxCalls = None,
    val_rows: ValRows = None,
    test_rows: TestRows = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What the rows of TASK can and cannot tell, and what a run may cost. Asks no LM."""
    flags = knobs(locals())

    def work() -> int:
        root, config = project(flags)
        from optimize.climb.preflight import preflight
        from optimize.commands.session import load_task_and_rows
        from optimize.report.text import checks

        loaded, splits = load_task_and_rows(root, task, config)
        found = preflight(loaded, splits, config)
        print_found(found, checks(found, loaded.target, task), json)
        return 1 if any(f.problem for f in found.findings) else 0

    guarded(debug, work)


@app.command()
def run(
    task: TaskName,
    target: Target = None,
    lm: Lm = None,
    teacher: Teacher = None,
    api_base: ApiBase = None,
    teacher_api_base: TeacherBase = None,
    max_calls: MaxCalls = None,
    seed: Seed = None,
    threads: Threads = None,
    temperature: Temperature = None,
    repeats: Repeats = None,
    headroom: Annotated[
        bool | None,
        typer.Option(
            "--headroom",
            help="short of the target: could the best of 5 answers, or the teacher, reach it?",
        ),
    ] = None,
    finetune: Annotated[
        str | None, typer.Option(help="on a plateau below target: bundle, lora, openai or never")
    ] = None,
    method: Method = None,
    replay: Replay = None,
    finetune_base: FinetuneBase = None,
    epochs: Epochs = None,
    no_regression_on: NoRegressionOn = None,
    waive: Waive = None,
    val_rows: ValRows = None,
    test_rows: TestRows = None,
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

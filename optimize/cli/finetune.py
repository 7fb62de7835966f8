"""Commands on the fallback, from the last climb of a task: gate, handoff, finetune, adopt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from optimize.cli.app import (
    ApiBase,
    BudgetUsd,
    ClimbedLm,
    ClimbedTarget,
    Context,
    Debug,
    Details,
    Epochs,
    FinetuneBase,
    Gpus,
    Grid,
    Json,
    JudgeBase,
    JudgeLm,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    Method,
    NoRegressionOn,
    Output,
    Repeats,
    Replay,
    Seed,
    TaskName,
    Teacher,
    TeacherBase,
    Temperature,
    Threads,
    Timeout,
    Waive,
    app,
    example,
    guarded,
    knobs,
    optional_task,
    print_found,
    print_report,
    project,
    reported,
    session,
)


@app.command(epilog=example("optimize gate tickets"))
def gate(
    task: TaskName,
    target: ClimbedTarget = None,
    waive: Waive = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Whether TASK may be fine-tuned, criterion by criterion, and what would open the gate."""

    def work() -> int:
        root, config = project({"target": target, "waive": waive}, task)
        from optimize.commands.gate import gate_last
        from optimize.report.text import criteria

        found, following = gate_last(root, task, config)
        print_found(found, criteria(found, following), json)
        return 0 if found.open else 1

    guarded(debug, work)


@app.command(epilog=example("optimize handoff tickets --pairs"))
def handoff(
    task: Annotated[str | None, optional_task("the task; not needed with --verify")] = None,
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs", help="ask the best prompt program for train rows too, for preference pairs"
        ),
    ] = False,
    verify: Annotated[
        Path | None, typer.Option(help="check the hand-off in this folder instead of writing one")
    ] = None,
    lm: ClimbedLm = None,
    api_base: ApiBase = None,
    judge_lm: JudgeLm = None,
    judge_api_base: JudgeBase = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    budget_usd: BudgetUsd = None,
    max_minutes: MaxMinutes = None,
    threads: Threads = None,
    timeout: Timeout = None,
    temperature: Temperature = None,
    context: Context = None,
    target: ClimbedTarget = None,
    epochs: Epochs = None,
    waive: Waive = None,
    debug: Debug = False,
) -> None:
    """Write the fine-tuning hand-off (rows, recipes, program, manifest) of the last climb of TASK,
    or check one.
    """
    flags = {k: v for k, v in locals().items() if k not in ("task", "pairs", "verify", "debug")}

    def work() -> int:
        if verify:
            return _verified(verify)
        if task is None:
            raise typer.BadParameter("name a TASK, or give --verify FOLDER")
        from optimize.cli.screen import Screen

        with Screen() as screen:
            opened = session(task, flags, screen, after_climb=True)
            from optimize.commands.handoff import handoff_last

            folder, manifest, here = handoff_last(opened, pairs)
        from optimize.finetune import untrainable

        cannot = untrainable(opened.config)
        rows = ", ".join(
            f"{f.rows} in {name} (some {f.tokens} tokens)"
            for name, f in manifest.files.items()
            if name.startswith(("chat/", "preferences/"))
        )
        place = folder.relative_to(opened.root)
        typer.echo(f"Hand-off written: {place}\nRows: {rows}")
        away = f"train elsewhere, as its README says, then optimize adopt {place}"
        typer.echo(f"Next: {f'{away}. {cannot}' if cannot else here}")
        if not cannot and opened.config.api_base:  # a server of one's own seldom trains
            typer.echo(f"Where that server does not fine-tune: {away}")
        return 0

    guarded(debug, work)


def _verified(folder: Path) -> int:
    from optimize.finetune.handoff import manifest

    wrong = manifest.verify(folder)
    for line in wrong:
        typer.secho(line, fg="red", err=True)
    held = (
        f"{len(wrong)} claims of the manifest do not hold."
        if wrong
        else "every hash and claim of the manifest holds."
    )
    typer.echo(f"{folder}: {held}")
    return 1 if wrong else 0


DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="show and check what trl would run, and train nothing; asks no LM",
    ),
]


@app.command(epilog=example("optimize finetune tickets --backend lora --replay 100"))
def finetune(
    task: TaskName,
    backend: Annotated[str, typer.Option(help="who trains: lora, trl or openai")] = "lora",
    lm: ClimbedLm = None,
    teacher: Teacher = None,
    api_base: ApiBase = None,
    teacher_api_base: TeacherBase = None,
    judge_lm: JudgeLm = None,
    judge_api_base: JudgeBase = None,
    target: ClimbedTarget = None,
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
    method: Method = None,
    replay: Replay = None,
    finetune_base: FinetuneBase = None,
    epochs: Epochs = None,
    gpus: Gpus = None,
    dry_run: DryRun = False,
    grid: Grid = None,
    no_regression_on: NoRegressionOn = None,
    waive: Waive = None,
    json: Json = False,
    details: Details = False,
    debug: Debug = False,
) -> None:
    """Fine-tune from the last climb of TASK, without climbing again."""
    flags = knobs(locals())
    if dry_run:
        return guarded(debug, lambda: _dry_run(task, backend, flags))

    def use_case(session: Any) -> Any:
        from optimize.commands.finetune import finetune_last

        return finetune_last(session)

    output = Output(json, details, debug)
    reported(task, flags | {"finetune": backend}, output, use_case, after_climb=True)


def _dry_run(task: str, backend: str, flags: dict[str, Any]) -> int:
    if backend != "trl":
        raise typer.BadParameter("--dry-run shows what --backend trl would run")
    root, config = project(flags, task)
    from optimize.commands.finetune import dry_run
    from optimize.report.training import planned

    typer.echo(planned(dry_run(root, task, config), config.method))
    return 0


@app.command(epilog=example("optimize adopt mlruns/handoff/tickets"))
def adopt(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="a hand-off with the adapter that was trained on it; or a task, whose hand-off is "
            "in mlruns/handoff",
        ),
    ],
    adapter: Annotated[
        Path | None,
        typer.Option(help="the PEFT folder or GGUF file; default: the one in FOLDER"),
    ] = None,
    lm: Annotated[
        str | None,
        typer.Option(help="the tuned LM, where it is served: openai/NAME, with --api-base"),
    ] = None,
    api_base: Annotated[
        str | None, typer.Option(help="address of the endpoint that serves it, and its base")
    ] = None,
    judge_lm: JudgeLm = None,
    judge_api_base: JudgeBase = None,
    target: ClimbedTarget = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    budget_usd: BudgetUsd = None,
    max_minutes: MaxMinutes = None,
    threads: Threads = None,
    timeout: Timeout = None,
    temperature: Temperature = None,
    context: Context = None,
    repeats: Repeats = None,
    no_regression_on: NoRegressionOn = None,
    waive: Waive = None,
    json: Json = False,
    details: Details = False,
    debug: Debug = False,
) -> None:
    """Judge an LM that was tuned elsewhere from a hand-off: accept it, or keep the best prompt."""
    flags = {k: v for k, v in knobs(locals()).items() if k not in ("folder", "adapter", "lm")}

    def work() -> int:
        root, _ = project({})
        from optimize.cli.screen import Screen
        from optimize.commands import adopt as use_case
        from optimize.commands.session import open_session

        found = use_case.returned(root, folder, adapter, lm)
        with Screen() as screen:
            config = use_case.config_of(root, found, flags)
            opened = open_session(root, found.manifest.task, config, screen)
            screen.counts(opened.meter, opened.config.in_flight)
            report = use_case.adopt(opened, found)
        return print_report(report, Output(json, details, debug))

    guarded(debug, work)

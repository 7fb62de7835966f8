"""Commands that make a run: check before it, run, finetune and handoff from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from optimize.cli.app import (
    ApiBase,
    Debug,
    Epochs,
    FinetuneBase,
    Json,
    Lm,
    MaxCalls,
    Repeats,
    Seed,
    Target,
    TaskName,
    Teacher,
    TeacherBase,
    Temperature,
    TestRows,
    Threads,
    ValRows,
    app,
    guarded,
    print_found,
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
    flags = {k: v for k, v in locals().items() if k not in ("task", "json", "debug")}

    def work() -> int:
        root, config = _project(flags)
        from optimize.preflight import preflight
        from optimize.session import load
        from optimize.show import checks

        loaded, splits = load(root, task, config)
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
        bool | None, typer.Option("--headroom", help="short of the target: could the best of 5 answers, or the teacher, reach it?")
    ] = None,
    finetune: Annotated[str | None, typer.Option(help="on a plateau below target: bundle, lora or never")] = None,
    finetune_base: FinetuneBase = None,
    epochs: Epochs = None,
    val_rows: ValRows = None,
    test_rows: TestRows = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Climb the ladder until TASK reaches its target or prompting has plateaued; then test once."""
    flags = {k: v for k, v in locals().items() if k not in ("task", "json", "debug")}
    _report(task, flags, json, debug, lambda engine, session: engine.run(session))


@app.command()
def finetune(
    task: TaskName,
    backend: Annotated[str, typer.Option(help="who trains: lora")] = "lora",
    lm: Lm = None,
    max_calls: MaxCalls = None,
    seed: Seed = None,
    threads: Threads = None,
    temperature: Temperature = None,
    repeats: Repeats = None,
    finetune_base: FinetuneBase = None,
    epochs: Epochs = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune from the last climb of TASK, without climbing again."""
    flags = {k: v for k, v in locals().items() if k not in ("task", "json", "debug", "backend")}
    _report(task, flags | {"finetune": backend}, json, debug, lambda engine, session: engine.finetune_last(session, backend))


@app.command()
def handoff(task: TaskName, lm: Lm = None, debug: Debug = False) -> None:
    """Write the fine-tuning hand-off (rows, program, manifest) of the last climb of TASK."""

    def work() -> int:
        engine, session = _session(task, {"lm": lm}, None)
        folder = engine.handoff_last(session)
        typer.echo(f"Hand-off written: {folder.relative_to(session.root)}\nNext: optimize finetune {task} --backend lora")
        return 0

    guarded(debug, work)


def _report(task: str, flags: dict[str, Any], json: bool, debug: bool, use_case: Callable[[Any, Any], Any]) -> None:
    def work() -> int:
        from optimize.screen import Screen

        with Screen() as screen:
            engine, session = _session(task, flags, screen)
            found = use_case(engine, session)
        from optimize.show import terminal

        print_found(found, terminal(found), json)
        return 0 if found.target_met else 1

    guarded(debug, work)


def _session(task: str, flags: dict[str, Any], watch: Any) -> tuple[Any, Any]:
    """The use cases and an open session."""
    root, config = _project(flags)
    from optimize import run as engine
    from optimize.ladder import Observer
    from optimize.session import open_session

    return engine, open_session(root, task, config, watch or Observer())


def _project(flags: dict[str, Any]) -> tuple[Path, Any]:
    """The project's root and the configuration. The environment is set before DSPy or MLflow are imported."""
    from optimize.config import find_root, load_config

    config = load_config(**flags)
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return find_root(), config

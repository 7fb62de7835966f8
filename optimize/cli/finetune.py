"""Commands on the fallback, from the last climb of a task: gate, handoff, finetune."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from optimize.cli.app import (
    Debug,
    Epochs,
    FinetuneBase,
    Json,
    Lm,
    MaxCalls,
    Repeats,
    Seed,
    TaskName,
    Temperature,
    Threads,
    Waive,
    app,
    guarded,
    print_found,
    project,
    reported,
    session,
)


@app.command()
def gate(task: TaskName, waive: Waive = None, json: Json = False, debug: Debug = False) -> None:
    """Whether TASK may be fine-tuned, criterion by criterion, and what would open the gate."""

    def work() -> int:
        root, config = project({"waive": waive})
        from optimize.fallback import gate_last
        from optimize.show import criteria

        found = gate_last(root, task, config.waive)
        print_found(found, criteria(found, task), json)
        return 0 if found.open else 1

    guarded(debug, work)


@app.command()
def handoff(task: TaskName, lm: Lm = None, waive: Waive = None, debug: Debug = False) -> None:
    """Write the fine-tuning hand-off (rows, program, manifest) of the last climb of TASK."""

    def work() -> int:
        opened = session(task, {"lm": lm, "waive": waive})
        from optimize.fallback import handoff_last

        folder = handoff_last(opened)
        typer.echo(f"Hand-off written: {folder.relative_to(opened.root)}\nNext: optimize finetune {task} --backend lora")
        return 0

    guarded(debug, work)


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
    waive: Waive = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune from the last climb of TASK, without climbing again."""
    flags = {k: v for k, v in locals().items() if k not in ("task", "json", "debug", "backend")}

    def use_case(session: Any) -> Any:
        from optimize.fallback import finetune_last

        return finetune_last(session, backend)

    reported(task, flags | {"finetune": backend}, json, debug, use_case)

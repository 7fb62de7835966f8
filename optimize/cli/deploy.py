"""Commands that bring a result into use: written as a folder, made champion, served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from optimize.cli.app import (
    ApiBase,
    ClimbedLm,
    Debug,
    Json,
    RunName,
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

Reason = Annotated[str, typer.Option(help="why; kept on record", show_default=False)]
Form = Literal["folder", "mlflow", "prompt", "openai-eval", "promptfoo", "peft"]


@app.command(epilog=example("optimize export tickets ./tickets-program"))
def export(
    task: TaskName,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new or empty")],
    form: Annotated[
        Form,
        typer.Option(
            "--as",
            help="folder: runs by itself with dspy; mlflow: a model folder; prompt: text and "
            "messages; openai-eval, promptfoo: val rows with asserts; peft: its LoRA, for vLLM",
        ),
    ] = "folder",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the best program of TASK into DIR, for those who do not have optimize."""

    def work() -> int:
        from optimize.commands import export as exporting
        from optimize.config import find_root
        from optimize.report.export import exported_lines

        found = exporting.export(find_root(), task, folder, form)
        print_found(found, "\n".join(exported_lines(found)), json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize promote tickets~1 --reason 'steadier on long messages'"))
def promote(run: RunName, reason: Reason = "", json: Json = False, debug: Debug = False) -> None:
    """Make the program of RUN its task's champion: what is loaded, served and exported.

    Refused where the test rows that both were asked do not show that it is better, unless --reason
    says why.
    """

    def work() -> int:
        from optimize.commands import promote as promoting
        from optimize.config import find_root
        from optimize.report.promotion import promoted_lines

        found = promoting.promote(find_root(), run, reason)
        print_found(found, "\n".join(promoted_lines(found)), json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize rollback tickets --reason 'complaints about refunds'"))
def rollback(task: TaskName, reason: Reason = "", json: Json = False, debug: Debug = False) -> None:
    """Make the champion of TASK the one that was it before."""

    def work() -> int:
        from optimize.commands import promote as promoting
        from optimize.config import find_root
        from optimize.report.promotion import promoted_lines

        found = promoting.rollback(find_root(), task, reason)
        print_found(found, "\n".join(promoted_lines(found)), json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize serve tickets --port 8000"))
def serve(
    task: TaskName,
    host: Annotated[
        str, typer.Option(help="address to listen at; beyond this machine it needs a key")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 8000,
    lm: ClimbedLm = None,
    api_base: ApiBase = None,
    threads: Threads = None,
    timeout: Timeout = None,
    debug: Debug = False,
) -> None:
    """Answer over HTTP by the best program of TASK, and by the next one when that changes.

    POST /predict, POST /predict/batch, GET /health, GET /metrics, GET /openapi.json. --threads is
    how many requests it takes at once; more are told to come back (429). OPTIMIZE_SERVE_KEY is the
    key that requests must bring.
    """

    base = joined(api_base)

    def work() -> int:
        root, _ = project({})
        from optimize.serving import server

        def say(address: str, now: Any) -> None:
            typer.echo(
                f"Serving {task}, version {now.now.version}, at {address}: POST /predict with "
                f"its fields as JSON. Ctrl-C ends it when what is in flight is answered."
            )

        knobs = {"lm": lm, "api_base": base, "threads": threads, "timeout": timeout}
        server.serve(root, task, (host, port), knobs, say)
        typer.echo("Stopped; nothing was in flight any more.")
        return 0

    guarded(debug, work)

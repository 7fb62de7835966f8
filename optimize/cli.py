"""The command line: parse, call, print, exit code. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Climb the prompt ladder on a DSPy task; fine-tune only when prompting has plateaued below the target.",
)
lm_app = typer.Typer(no_args_is_help=True, help="The language models: fetch, list, ask.")
app.add_typer(lm_app, name="lm")

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="a file in programs/, without .py")]
Lm = Annotated[str | None, typer.Option(help="embedded, gguf:PATH, or a DSPy model string such as openai/gpt-4.1-mini")]
Teacher = Annotated[str | None, typer.Option(help="a stronger LM to propose and bootstrap; default: the LM itself")]
ApiBase = Annotated[str | None, typer.Option(help="address of the LM's OpenAI-compatible endpoint")]
TeacherBase = Annotated[str | None, typer.Option(help="the same for the teacher")]
MaxCalls = Annotated[int | None, typer.Option(help="hard cap on LM calls; answers from the cache are free")]
Seed = Annotated[int | None, typer.Option(help="seed of every random choice")]
Threads = Annotated[int | None, typer.Option(help="LM calls in flight")]
Epochs = Annotated[int | None, typer.Option(help="passes over the train rows in a LoRA fine-tune")]
FinetuneBase = Annotated[Path | None, typer.Option(help="transformers folder of the LM's weights to train on; default: its GGUF")]
ValRows = Annotated[int | None, typer.Option(help="use at most so many val rows: faster, and less can be told")]
TestRows = Annotated[int | None, typer.Option(help="the same for test rows")]
Temperature = Annotated[float | None, typer.Option(help="of the task LM, 0…2")]
Repeats = Annotated[int | None, typer.Option(help="ask each val and test row so often: tells the LM's noise from the sample's")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="TASK: its last run; TASK~1: the one before; or the start of a run's id")]
Json = Annotated[bool, typer.Option("--json", help="the report on stdout, everything else on stderr")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


@app.command()
def run(
    task: TaskName,
    target: Annotated[float | None, typer.Option(help="score to reach, 0…1; default: the task's own")] = None,
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
def check(
    task: TaskName,
    target: Annotated[float | None, typer.Option(help="score to reach, 0…1; default: the task's own")] = None,
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
        from rich.console import Console

        from optimize.config import find_root, load_config

        config = load_config(**flags)
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        from optimize.preflight import check_task, shown

        found, goal = check_task(find_root(), task, config)
        Console(stderr=json).print(shown(found, goal, task))
        if json:
            typer.echo(found.model_dump_json(indent=1))
        return 1 if any(f.problem for f in found.findings) else 0

    _guarded(debug, work)


@app.command()
def verdict(run: RunName, json: Json = False, debug: Debug = False) -> None:
    """Draw the verdict of RUN again, from the scores in the MLflow store alone."""

    def work() -> int:
        from rich.console import Console

        from optimize.config import find_root
        from optimize.verdict import redraw

        found = redraw(find_root(), run)
        Console(stderr=json).print(f"{found.verdict.upper()}: {found.reason}", highlight=False, markup=False)
        if json:
            typer.echo(found.model_dump_json(indent=1))
        return 0 if found.verdict == "reached" else 1

    _guarded(debug, work)


@app.command()
def compare(before: RunName, after: RunName, json: Json = False, debug: Debug = False) -> None:
    """Compare two runs of a task, paired, on the rows that both scored."""

    def work() -> int:
        from rich.console import Console

        from optimize import compare as comparing
        from optimize.config import find_root

        found = comparing.compare(find_root(), before, after)
        for line in comparing.told(found):
            Console(stderr=json).print(line, highlight=False, markup=False)
        if json:
            typer.echo(found.model_dump_json(indent=1))
        return 0

    _guarded(debug, work)


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

    _guarded(debug, work)


@app.command()
def report(task: TaskName, json: Json = False, debug: Debug = False) -> None:
    """Show the last run of TASK again."""

    def work() -> int:
        from optimize.config import find_root
        from optimize.tracking import last_run

        found, _ = last_run(find_root(), task)
        _print_report(found, json)
        return 0 if found.target_met else 1

    _guarded(debug, work)


@app.command()
def tasks(debug: Debug = False) -> None:
    """List the tasks with their rows and their best program so far."""

    def work() -> int:
        from rich.console import Console

        from optimize.config import find_root
        from optimize.overview import overview

        Console().print(overview(find_root()))
        return 0

    _guarded(debug, work)


@app.command()
def new(name: Annotated[str, typer.Argument(help="name of the task: letters, digits, underscores")], debug: Debug = False) -> None:
    """Write a new task: programs/NAME.py and devsets/NAME/ with a small runnable example."""

    def work() -> int:
        from optimize.config import find_root
        from optimize.scaffold import write_task

        for path in write_task(find_root(), name):
            typer.echo(f"Wrote {path}")
        typer.echo(f"Next: optimize run {name}")
        return 0

    _guarded(debug, work)


@app.command()
def ui(port: Annotated[int, typer.Option(help="port on 127.0.0.1")] = 5000, debug: Debug = False) -> None:
    """Open the MLflow UI on this project's runs."""

    def work() -> int:
        from optimize.config import find_root
        from optimize.tracking import ui_command

        command = ui_command(find_root(), port)
        typer.echo(f"MLflow UI on http://127.0.0.1:{port} (Ctrl-C ends it)", err=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return subprocess.run(command, env=os.environ | {"PATH": path}).returncode

    _guarded(debug, work)


@lm_app.command("pull")
def lm_pull(
    name: Annotated[str, typer.Argument(help="embedded, or OWNER/REPO/FILE.gguf on the hub")] = "embedded", debug: Debug = False
) -> None:
    """Fetch model weights into the per-user cache."""

    def work() -> int:
        from optimize.lm import weights

        path = weights.pull_embedded(typer.echo) if name == "embedded" else weights.pull_hub(name, typer.echo)
        typer.echo(path)
        return 0

    _guarded(debug, work)


@lm_app.command("list")
def lm_list(debug: Debug = False) -> None:
    """List the weights in the cache."""

    def work() -> int:
        from optimize.lm import weights

        found = weights.cached()
        for path in found:
            name = "embedded" if path == weights.embedded_path() else f"gguf:{path}"
            typer.echo(f"{path.stat().st_size / 1e6:8.0f} MB  {name}")
        if not found:
            typer.echo(f"None in {weights.cache_dir()}. Next: optimize lm pull")
        return 0

    _guarded(debug, work)


@lm_app.command("ask")
def lm_ask(
    question: Annotated[str, typer.Argument(help="what to ask")], lm: Lm = None, api_base: ApiBase = None, debug: Debug = False
) -> None:
    """Ask the configured LM one question, as a check."""

    def work() -> int:
        from optimize import lm as lms
        from optimize.config import find_root, load_config

        config = load_config(lm=lm, api_base=api_base)
        lms.configure(find_root())
        typer.echo(lms.ask(config, question))
        return 0

    _guarded(debug, work)


def _report(task: str, flags: dict[str, Any], json: bool, debug: bool, use_case: Callable[[Any, Any], Any]) -> None:
    def work() -> int:
        from optimize.screen import Screen

        with Screen() as screen:
            engine, session = _session(task, flags, screen)
            found = use_case(engine, session)
        _print_report(found, json)
        return 0 if found.target_met else 1

    _guarded(debug, work)


def _session(task: str, flags: dict[str, Any], watch: Any) -> tuple[Any, Any]:
    """The use cases and an open session. The environment is set before DSPy or MLflow are imported."""
    from optimize.config import find_root, load_config

    config = load_config(**flags)
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from optimize import run as engine
    from optimize.ladder import Observer
    from optimize.session import open_session

    return engine, open_session(find_root(), task, config, watch or Observer())


def _print_report(found: Any, json: bool) -> None:
    from rich.console import Console

    from optimize.report import show

    show(found, Console(stderr=json))
    if json:
        typer.echo(found.model_dump_json(indent=1))


def _guarded(debug: bool, work: Callable[[], int]) -> None:
    """Run a command's body: a user's mistake is one line and exit code 2, never a traceback unless --debug."""
    from optimize.errors import BudgetExhausted, WorkbenchError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped command closes its MLflow run, as with Ctrl-C
    try:
        code = work()
    except WorkbenchError as error:
        if debug:
            raise
        typer.secho(f"Error: {error}", fg="red", err=True)
        code = 2
    except BudgetExhausted as error:
        typer.secho(f"Error: {error} Give the same command a higher --max-calls: what is known is cached.", fg="red", err=True)
        code = 2
    except KeyboardInterrupt:
        typer.secho("Stopped. What was answered is cached; the same command goes on from there.", err=True)
        sys.stdout.flush()
        os._exit(130)  # an optimizer's worker threads would go on asking until their queue is empty
    raise typer.Exit(code)

"""Commands that look at runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from optimize.cli.app import (
    Debug,
    Details,
    Json,
    Output,
    RunName,
    app,
    example,
    guarded,
    print_found,
    print_report,
)


@app.command(epilog=example("optimize verdict tickets~1"))
def verdict(run: RunName, json: Json = False, debug: Debug = False) -> None:
    """Draw the verdict of RUN again, from the scores in the MLflow store alone."""

    def work() -> int:
        from rich.text import Text

        from optimize.commands.redraw import redraw
        from optimize.config import find_root

        found = redraw(find_root(), run)
        print_found(found, Text(f"{found.verdict.upper()}: {found.reason}"), json)
        return 0 if found.verdict == "reached" else 1

    guarded(debug, work)


@app.command(epilog=example("optimize compare tickets~1 tickets"))
def compare(before: RunName, after: RunName, json: Json = False, debug: Debug = False) -> None:
    """Compare two runs of a task, paired, on the rows that both scored."""

    def work() -> int:
        from rich.text import Text

        from optimize.commands import compare as comparing
        from optimize.config import find_root
        from optimize.report.sentences import comparison_sentences

        found = comparing.compare(find_root(), before, after)
        print_found(found, Text("\n".join(comparison_sentences(found))), json)
        return 0

    guarded(debug, work)


class _Files(TyperCommand):
    """`--html`, `--md` and `--csv` may stand without a file: typer knows no such options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        whole = []
        for word, following in zip_longest(args, args[1:]):
            named = following is not None and not following.startswith("-")
            whole += [word, HERE] if word in FORMS and not named else [word]
        return super().parse_args(ctx, whole)


LAST_WORDS = 3000  # letters of a server that ended by itself
HERE = "."  # a file in this folder, named after the task
FORMS = ("--html", "--md", "--csv")
File = "[FILE]"


@app.command(cls=_Files, epilog=example("optimize report tickets --html"))
def report(
    run: RunName,
    html: Annotated[
        Path | None, typer.Option(metavar=File, help="write it as one page: rows, prompts, charts")
    ] = None,
    md: Annotated[
        Path | None, typer.Option(metavar=File, help="as Markdown, with a picture beside it")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar=File, help="its rows and answers, for a spreadsheet")
    ] = None,
    json: Json = False,
    details: Details = False,
    debug: Debug = False,
) -> None:
    """Show RUN again, or write it to a file for others. FILE: default is one named by the task."""
    forms = {"html": html, "md": md, "csv": csv}

    def work() -> int:
        from optimize.config import find_root
        from optimize.store.read import reported

        found, kept = reported(find_root(), run)
        asked = {form: path for form, path in forms.items() if path}
        if not asked:
            return print_report(found, Output(json, details), run)
        from optimize.commands.report import export, page_of

        page = page_of(found, kept)
        for form, path in asked.items():
            for written in export(page, form, None if path == Path(HERE) else path):
                typer.echo(written)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize tasks --json"))
def tasks(json: Json = False, debug: Debug = False) -> None:
    """List the tasks with their rows and their best program so far."""

    def work() -> int:
        from optimize.commands.tasks import overview
        from optimize.config import find_root
        from optimize.report.looks import tasks_shown

        root = find_root()
        found = overview(root)
        none = (
            f"No tasks in {root / 'programs'}. Next: optimize new NAME writes one here, optimize "
            "init DIR a whole project."
        )
        print_found(found, tasks_shown(found) if found.tasks else none, json)
        return 0

    guarded(debug, work)


@app.command(epilog=example("optimize ui --port 5001"))
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port on 127.0.0.1")] = 5000,
    debug: Debug = False,
) -> None:
    """Open the MLflow UI on this project's runs."""

    def work() -> int:
        from optimize.config import find_root
        from optimize.errors import WorkbenchError
        from optimize.secrets import redacted
        from optimize.store.experiment import addresses
        from optimize.store.open import ui_command, without_password

        command, address = ui_command(find_root(), port), f"http://127.0.0.1:{port}"
        typer.echo(f"MLflow UI on {address} (Ctrl-C ends it)", err=True)
        for task, runs in addresses(find_root(), address).items():
            typer.echo(f"  {task}: {runs}", err=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        quiet = {"PATH": path, "PYTHONWARNINGS": "ignore"}
        code, said = _served(command, os.environ | quiet)
        if code:
            typer.echo(without_password(redacted(said)), err=True)
            raise WorkbenchError(f"The MLflow server ended with code {code}. Is port {port} free?")
        return 0

    guarded(debug, work)


def _served(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Run a server until it ends, or end it with all the processes it has started. Its code, and
    what it has said: libraries speak of themselves at each start, which hides the addresses.
    """
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(
            command, env=env, start_new_session=True, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            code = running.wait()
        finally:
            _ended(running)
        said.seek(0)
        return code, said.read().decode(errors="replace")[-LAST_WORDS:]


def _ended(running: subprocess.Popen[bytes]) -> None:
    if os.name == "nt":
        running.terminate()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGTERM)
    try:
        running.wait(timeout=10)
    except subprocess.TimeoutExpired:
        running.kill()

"""The application, the options that commands share, and what becomes of a user's mistake."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from optimize import __version__, stopping
from optimize.cli import complete
from optimize.secrets import redacted

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Climb the prompt ladder on a DSPy task; fine-tune only when prompting has plateaued "
    "below the target.",
)

BASES = ("api_base", "teacher_api_base")


def named(given: str) -> str:
    """The task's name where its file was given: programs/booking.py is booking."""
    if not given.endswith(".py"):
        return given
    from optimize.config import find_root

    path, root = Path(given).resolve(), find_root()
    if path.parent != root / "programs":
        raise typer.BadParameter(
            f"{given} is not in {root / 'programs'}, where this project's tasks are; move it "
            "there, or run the command in its own project."
        )
    return path.stem


def unwrapped(group: typer.Typer) -> None:
    """Take the line breaks of the source out of the commands' help: terminals have other widths."""
    for command in group.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(part.split()) for part in paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance:
            unwrapped(inner.typer_instance)


def example(command: str) -> str:
    """The last line of a command's help. A test runs each of them."""
    return f"Example: {command}"


TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        parser=named,
        autocompletion=complete.tasks,
        help="a file in programs/: its name, or its path",
    ),
]


def optional_task(told: str) -> Any:
    """A TASK that may be left out, with what the help says of it."""
    return typer.Argument(
        metavar="TASK",
        parser=named,
        autocompletion=complete.tasks,
        help=told,
        show_default=False,
    )


OptionalTask = Annotated[str | None, optional_task("one task alone; default: all")]
Target = Annotated[float | None, typer.Option(help="score to reach, 0…1; default: the task's own")]
ClimbedTarget = Annotated[
    float | None, typer.Option(help="score to reach, 0…1; default: the climb's")
]
_NAMED_LM = (
    "a name from `optimize lm list`, gguf:PATH, or a DSPy model string such as openai/gpt-4.1-mini"
)
Lm = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete.lms,
        help=f"{_NAMED_LM}; default: that of optimize.toml, else the small one in the process",
    ),
]
ClimbedLm = Annotated[
    str | None,
    typer.Option(autocompletion=complete.lms, help=f"{_NAMED_LM}; default: the climb's"),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete.lms,
        help="a stronger LM to propose and bootstrap; default: the LM itself",
    ),
]
ApiBase = Annotated[
    list[str] | None,
    typer.Option(
        help="address of the LM's OpenAI-compatible endpoint; repeatable, or @FILE with one a line"
    ),
]
TeacherBase = Annotated[list[str] | None, typer.Option(help="the same for the teacher")]
JudgeLm = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete.lms,
        help="LM of the task's judge; default: as the judge was optimized, else the teacher or LM",
    ),
]
Batch = Annotated[
    bool | None,
    typer.Option("--batch", help="through the provider's batch API: half the price, within a day"),
]
JudgeBase = Annotated[str | None, typer.Option("--judge-api-base", help="address of its endpoint")]
MaxCalls = Annotated[
    int | None, typer.Option(help="hard cap on LM calls; answers from the cache are free")
]
MaxTokens = Annotated[int | None, typer.Option(help="the same for tokens, read and written")]
BudgetUsd = Annotated[float | None, typer.Option(help="the same for US dollars")]
MaxMinutes = Annotated[float | None, typer.Option(help="stop after so many minutes")]
Seed = Annotated[int | None, typer.Option(help="seed of every random choice")]
Threads = Annotated[int | None, typer.Option(help="LM calls in flight")]
Timeout = Annotated[
    float | None, typer.Option(help="seconds a hosted LM may take to answer a call")
]
Grid = Annotated[
    int | None,
    typer.Option(help="LoRA trainings at most; val chooses learning rate, rank, share of blocks"),
]
Epochs = Annotated[int | None, typer.Option(help="passes over the train rows in a LoRA fine-tune")]
Gpus = Annotated[
    int | None,
    typer.Option(help="GPUs that trl trains on, 0 for the processor; default: all that are here"),
]
FinetuneBase = Annotated[
    str | None,
    typer.Option(
        help="weights to train on: a transformers folder or hub name; default: the LM's GGUF"
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="what a tuned LM learns from: sft (gold answers), dpo or kto (these and preferences), "
        "distill (a teacher)"
    ),
]
Replay = Annotated[
    int | None,
    typer.Option(
        help="train on so many general instructions too, answered by the base LM: it forgets less "
        "(default: 3 for 10 train rows with --no-regression-on general, else 0)"
    ),
]
ValRows = Annotated[
    int | None, typer.Option(help="use at most so many val rows: faster, and less can be told")
]
TestRows = Annotated[int | None, typer.Option(help="use at most so many test rows")]
Embedder = Annotated[
    str | None,
    typer.Option(help="find rows and passages by meaning too: minilm, gguf:PATH, or openai/MODEL"),
]
EmbedderBase = Annotated[
    str | None, typer.Option("--embedder-api-base", help="address of the embedder's endpoint")
]
Context = Annotated[
    int | None, typer.Option(help="tokens the task LM may read and write in one call")
]
Temperature = Annotated[float | None, typer.Option(help="of the task LM, 0…2")]
Repeats = Annotated[
    int | None,
    typer.Option(help="ask each row this many times: tells the LM's noise from the sample's"),
]
Waive = Annotated[
    str | None,
    typer.Option(help="why to tune a task that is not declared stable and owned; goes on record"),
]
NoRegressionOn = Annotated[
    list[str] | None,
    typer.Option(
        help="what a tuned LM must not get worse at: general, or a task; repeatable; default: "
        "nothing, after a climb what the climb named"
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        help="a lever not to try (votes, say, where five calls an answer are too many); repeatable",
        autocompletion=complete.levers,
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        parser=named,
        autocompletion=complete.runs,
        help="TASK: its last run; TASK~1: the one before; or the start of a run's id",
    ),
]
ProgramName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        parser=named,
        autocompletion=complete.programs,
        help="as TASK, TASK~1 or an id: that run's best program; RUN~rung: a rung's, such as "
        "tickets~guide or tickets~1~guide",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, everything else on stderr")]
Details = Annotated[
    bool, typer.Option("--details", help="everything the report knows, not only its last screen")
]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def guarded(debug: bool, work: Callable[[], int]) -> None:
    """Run a command's body, and turn what it raises into a line and an exit code.

    0 met, 1 not met, 2 a user's mistake, 70 a bug of ours, 130 stopped; a traceback only with
    --debug.
    """
    from optimize.errors import JobLeft

    stopping.listen(_say_stopped)
    try:
        code = work()
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):  # typer ends these
        raise
    except JobLeft as left:
        stopping.spared()
        if sys.stdin.isatty() and typer.confirm(
            f"Cancel job {left.job} at the provider as well?", err=True
        ):
            left.cancel()
            typer.secho(f"Job {left.job} is cancelled.", err=True)
        else:
            typer.secho(
                f"Job {left.job} goes on at the provider; the same command waits for it again.",
                err=True,
            )
        code = stopping.STOPPED
    except KeyboardInterrupt:
        stopping.spared()
        _say_stopped()
        # an optimizer's worker threads would go on asking until their queue is empty
        os._exit(stopping.STOPPED)
    except BaseException as error:
        if debug:
            typer.echo(redacted(traceback.format_exc()), err=True)
        from optimize.commands.explained import explained

        line, code = explained(error)
        typer.secho(line, fg="red", err=True)
    raise typer.Exit(code)


def _say_stopped() -> None:
    typer.secho(
        "Stopped. What was answered is cached; the same command goes on from there.", err=True
    )
    sys.stdout.flush()


def print_found(found: Any, shown: Any, json: bool) -> None:
    """What a command found, as a person reads it; with --json the record itself on stdout and that
    on stderr.
    """
    from optimize.cli.screen import plain_console

    plain_console(stderr=json).print(shown)
    if json:
        typer.echo(found.model_dump_json(indent=1))


def knobs(arguments: dict[str, Any]) -> dict[str, Any]:
    """Of a command's arguments those that are knobs of a run."""
    others = ("task", "backend", "dry_run", "json", "details", "debug")
    found = {name: value for name, value in arguments.items() if name not in others}
    bases = {name: joined(found[name]) for name in BASES if name in found}
    return found | bases


def joined(bases: list[str] | None) -> str | None:
    """Addresses of one LM, as the knob has them."""
    return ",".join(bases) if bases else None


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@dataclass(frozen=True)
class Output:
    """How a command's outcome is shown."""

    json: bool = False
    details: bool = False
    debug: bool = False


def reported(
    task: str,
    flags: dict[str, Any],
    output: Output,
    use_case: Callable[[Any], Any],
    after_climb: bool = False,
) -> None:
    """Run a use case that ends in a report, under the screen, and print what it found.
    after_climb: as `session` has it.
    """

    def work() -> int:
        from optimize.cli.screen import Screen

        with Screen() as screen:
            opened = session(task, flags, screen, after_climb)
            screen.counts(opened.meter, opened.config.in_flight)
            found = use_case(opened)
        return print_report(found, output)

    guarded(output.debug, work)


def print_report(found: Any, output: Output, run: str = "") -> int:
    """Show a report, that of the run of this name; the command's exit code."""
    from optimize.report.text import terminal

    print_found(found, terminal(found, output.details, run), output.json)
    return 0 if found.target_met else 1


def session(task: str, flags: dict[str, Any], watch: Any = None, after_climb: bool = False) -> Any:
    """What a use case works with. after_climb: on the LM of the task's last climb, where no other
    is named.
    """
    root, config = project(flags, task if after_climb else "")
    from optimize.climb.observer import Observer
    from optimize.commands.session import open_session

    return open_session(root, task, config, watch or Observer())


def project(flags: dict[str, Any], climbed: str = "") -> tuple[Path, Any]:
    """The project's root and the configuration. climbed: the task whose last climb's LM, judge and
    target hold where no others are named.

    The environment is set before DSPy or MLflow are imported.
    """
    from optimize.config import find_root, load_config

    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    root = find_root()
    if not climbed:
        return root, load_config(**flags)
    from optimize.commands.gate import config_of_climb

    return root, config_of_climb(root, climbed, flags)

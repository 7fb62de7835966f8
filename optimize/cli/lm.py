"""Commands on language models: fetch, list, ask."""

from __future__ import annotations

from typing import Annotated

import typer

from optimize.catalogue import EMBEDDED, EMBEDDERS, in_catalogue
from optimize.cli.app import ApiBase, Debug, Json, Lm, app, example, guarded, print_found

lm_app = typer.Typer(no_args_is_help=True, help="The language models: fetch, list, ask.")
app.add_typer(lm_app, name="lm")


@lm_app.command("pull", epilog=example("optimize lm pull qwen2.5-coder-0.5b"))
def lm_pull(
    name: Annotated[
        str, typer.Argument(help="one of `optimize lm list`, or OWNER/REPO/FILE.gguf on the hub")
    ] = EMBEDDED,
    debug: Debug = False,
) -> None:
    """Fetch model weights into the per-user cache."""

    def work() -> int:
        from optimize.cli.screen import downloading
        from optimize.lm import weights

        found = in_catalogue(name) or EMBEDDERS.get(name)
        if found is None:
            typer.echo(weights.pull_hub(name, typer.echo))
            return 0
        with downloading(found.name) as told:
            path = weights.pull(found, typer.echo, told)
        typer.echo(path)
        return 0

    guarded(debug, work)


@lm_app.command("list", epilog=example("optimize lm list --json"))
def lm_list(json: Json = False, debug: Debug = False) -> None:
    """List the language models that run in the process, and which of them are here."""

    def work() -> int:
        from optimize.commands.models import models
        from optimize.report.looks import models_shown

        found = models()
        print_found(found, models_shown(found), json)
        return 0

    guarded(debug, work)


@lm_app.command("bench", epilog=example("optimize lm bench --lm qwen2.5-coder-0.5b"))
def lm_bench(lm: Lm = None, debug: Debug = False) -> None:
    """How fast a local LM reads and writes here, and what a climb would take."""

    def work() -> int:
        from optimize import lm as lms
        from optimize.config import load_config
        from optimize.errors import WorkbenchError
        from optimize.lm import embedded, speed

        config = load_config(lm=lm)
        path = lms.gguf_path(config.lm)
        if path is None:
            raise WorkbenchError(f"{config.lm!r} does not run on this machine: nothing to measure.")
        found = speed.measure(embedded.serve(path, context=config.context))
        typer.echo(f"{config.lm}: reads {found.reads:.0f} tokens/s, writes {found.writes:.0f}")
        minutes = found.climb(1000) / 60
        typer.echo(
            f"A climb of 1000 calls with prompts of {speed.PROMPT} tokens, {speed.SHARED:.0%} of "
            f"them read before, and answers of {speed.ANSWER}: about {minutes:.0f} minutes"
        )
        return 0

    guarded(debug, work)


@lm_app.command("ask", epilog=example('optimize lm ask "What is the capital of Italy?"'))
def lm_ask(
    question: Annotated[str, typer.Argument(help="what to ask")],
    lm: Lm = None,
    api_base: ApiBase = None,
    debug: Debug = False,
) -> None:
    """Ask the configured LM one question, as a check."""

    def work() -> int:
        from optimize import lm as lms
        from optimize.config import find_root, load_config

        config = load_config(lm=lm, api_base=api_base)
        lms.configure(find_root())
        typer.echo(lms.ask(config, question))
        return 0

    guarded(debug, work)

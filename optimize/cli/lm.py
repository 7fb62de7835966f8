"""Commands on language models: fetch, list, ask."""

from __future__ import annotations

from typing import Annotated

import typer

from optimize.catalogue import EMBEDDED, EMBEDDERS, MODELS, in_catalogue
from optimize.cli.app import ApiBase, Debug, Lm, app, guarded

lm_app = typer.Typer(no_args_is_help=True, help="The language models: fetch, list, ask.")
app.add_typer(lm_app, name="lm")


@lm_app.command("pull")
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


@lm_app.command("list")
def lm_list(debug: Debug = False) -> None:
    """List the language models that run in the process, and which of them are here."""

    def work() -> int:
        from rich.table import Table

        from optimize.cli.screen import plain_console
        from optimize.lm import weights

        table = Table("flag", "licence", "context", "MB", "here", box=None)
        for known in (*MODELS.values(), *EMBEDDERS.values()):
            default = known is in_catalogue(EMBEDDED)
            name = f"{EMBEDDED} ({known.name})" if default else known.name
            flag = "--embedder" if known.name in EMBEDDERS else "--lm"
            here = "yes" if weights.path_of(known).is_file() else "no"
            size = f"{known.size / 1e6:.0f}"
            table.add_row(f"{flag} {name}", known.licence, str(known.context), size, here)
        for path in weights.others():
            table.add_row(f"--lm gguf:{path}", "", "", f"{path.stat().st_size / 1e6:.0f}", "yes")
        plain_console(soft_wrap=True).print(table)
        typer.echo("Fetch one: optimize lm pull NAME")
        return 0

    guarded(debug, work)


@lm_app.command("bench")
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


@lm_app.command("ask")
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

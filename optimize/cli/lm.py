"""Commands on language models: fetch, list, ask."""

from __future__ import annotations

from typing import Annotated

import typer

from optimize.cli.app import ApiBase, Debug, Lm, app, guarded

lm_app = typer.Typer(no_args_is_help=True, help="The language models: fetch, list, ask.")
app.add_typer(lm_app, name="lm")


@lm_app.command("pull")
def lm_pull(
    name: Annotated[
        str, typer.Argument(help="embedded, or OWNER/REPO/FILE.gguf on the hub")
    ] = "embedded",
    debug: Debug = False,
) -> None:
    """Fetch model weights into the per-user cache."""

    def work() -> int:
        from optimize.lm import weights

        path = (
            weights.pull_embedded(typer.echo)
            if name == "embedded"
            else weights.pull_hub(name, typer.echo)
        )
        typer.echo(path)
        return 0

    guarded(debug, work)


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

"""Reference pages made from the code while the documentation is built (a hook of MkDocs)."""

from __future__ import annotations

import json
from typing import Any

from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.main import get_command

from optimize.cli import app
from optimize.config import RunConfig

PYTHON = """# Python

What a task file and a program in use import, all from `optimize`.

::: optimize.task.Task
    options: {members: [score], merge_init_into_class: true}

::: optimize.task.Score
    options: {merge_init_into_class: true}

::: optimize.commands.load.load_program
"""


def on_files(files: Files, config: Any) -> Files:
    pages = {"commands": commands(), "knobs": knobs(), "python": PYTHON}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def commands() -> str:
    """Every command with its arguments and options, as its --help says them."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=command.context_class(command), name="optimize")
    return _whole(command, text).replace("# `optimize`", "# Commands", 1)


def _whole(command: Any, text: str) -> str:
    """With whole first sentences in the lists of commands, which typer cuts after 45 letters."""
    for name, one in getattr(command, "commands", {}).items():
        first = " ".join((one.help or "").partition("\n\n")[0].split())
        text = text.replace(f"* `{name}`: {one.get_short_help_str()}\n", f"* `{name}`: {first}\n")
        text = _whole(one, text)
    return text


def knobs() -> str:
    lines = [
        "# Knobs",
        "",
        "A flag beats the environment (`OPTIMIZE_…`), which beats `optimize.toml`.",
        "",
        "| in optimize.toml | default | what it is |",
        "| --- | --- | --- |",
    ]
    for name, field in RunConfig.model_fields.items():
        value = field.default
        shown = "" if value is None else f"`{json.dumps(value, default=str)}`"
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join([*lines, ""])

"""A new project: the folders, every knob in optimize.toml, and example tasks that run at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from optimize.commands.new import write_new
from optimize.config import FILE, RunConfig
from optimize.errors import WorkbenchError, did_you_mean
from optimize.task import task_names

IGNORED = ("mlruns/", ".optimize/", ".venv/")
HEAD = """# Knobs of the runs in this project. A flag beats the environment (OPTIMIZE_LM, …),
# which beats this file. Remove the "#" before a knob to set it.
"""


def write_project(folder: Path, names: Sequence[str]) -> list[str]:
    """Write a project, or, where there is one, add the examples of these names to it.

    Gives what was done, a line each. Raises WorkbenchError, before anything is written, for a file
    that is there already.
    """
    contents = {}
    known = (folder / FILE).exists()
    if known and not names:
        raise WorkbenchError(
            f"{folder / FILE} exists already: this is a project. Next: optimize new NAME, or "
            "optimize init --example NAME."
        )
    if not known:
        contents[folder / FILE] = config_text().encode()
        if not (folder / ".gitignore").exists():
            contents[folder / ".gitignore"] = "".join(f"{line}\n" for line in IGNORED).encode()
    for name in names:
        for source in _example_files(name):
            contents[folder / source.relative_to(examples())] = source.read_bytes()
    told = [
        f"Wrote {path}"
        for path in write_new(contents, [folder / "devsets" / name for name in names])
    ]
    for name in ("programs", "devsets"):
        (folder / name).mkdir(exist_ok=True)
    return [*told, *_not_ignored(folder)]


def example_names(asked: Sequence[str]) -> list[str]:
    """The example tasks asked for; `all` stands for every one.

    Raises WorkbenchError for a name that is none of them.
    """
    known = task_names(examples())
    for name in asked:
        if name not in (*known, "all"):
            near = did_you_mean(name, known)
            raise WorkbenchError(f"No example {name!r}.{near} Examples: {', '.join(known)}, all.")
    return known if "all" in asked else list(dict.fromkeys(asked))


def examples() -> Path:
    """The folder that holds the examples' programs/ and devsets/: inside the installed package,
    or, when run from a checkout, the checkout.
    """
    package = Path(str(files("optimize")))
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent


def _example_files(name: str) -> Iterator[Path]:
    yield examples() / "programs" / f"{name}.py"
    rows = (examples() / "devsets" / name).rglob("*")
    yield from sorted(path for path in rows if path.is_file())


def _not_ignored(folder: Path) -> Iterator[str]:
    """A .gitignore that was there is the user's; what it lacks is said."""
    if not (folder / ".gitignore").is_file():
        return
    lines = (folder / ".gitignore").read_text(encoding="utf-8").splitlines()
    if missing := [line for line in IGNORED if line not in lines]:
        yield f"{folder / '.gitignore'} was there already; add to it: {' '.join(missing)}"


def config_text() -> str:
    """optimize.toml with every knob of RunConfig commented out: what it does, and its default."""
    return HEAD + "".join(_knob(name, field) for name, field in RunConfig.model_fields.items())


def _knob(name: str, field: FieldInfo) -> str:
    if name == "api_key":  # a secret does not belong into a file
        return "\n# The key for these addresses is not kept here: set OPTIMIZE_API_KEY.\n"
    told = f"{field.description}{_allowed(field)}"
    about = "".join(f"# {line}\n" for line in wrap(told, 97))
    if field.default is None:
        return (
            f"\n{about}# {name} = {_toml((field.examples or [None])[0])}  # an example; not set\n"
        )
    return f"\n{about}# {name} = {_toml(field.default)}\n"


def _allowed(field: FieldInfo) -> str:
    """The values a knob may have, where its description does not say."""
    if get_origin(field.annotation) is Literal:
        return f" ({', '.join(get_args(field.annotation))})"
    bounds = [
        f"{word} {getattr(rule, key)}"
        for rule in field.metadata
        for key, word in (("ge", "at least"), ("le", "at most"))
        if hasattr(rule, key)
    ]
    return f" ({', '.join(bounds)})" if bounds else ""


def _toml(value: Any) -> str:
    """JSON writes text, numbers, booleans and lists of them as TOML does."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)

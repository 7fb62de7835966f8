"""Every command's help ends with an example, and each of them can be given as it is printed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from optimize.cli import app

# what looks at the store or at files alone; the others ask an LM, train, fetch or serve
RUN = {
    *("runs", "show", "diff", "failures", "verdict", "compare", "report", "tasks", "cache"),
    *("doctor", "check", "gate", "lm list"),
}


def commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    found = getattr(group, "commands", None)
    if found is None:
        yield name, group
    for word, command in (found or {}).items():
        yield from commands(command, f"{name} {word}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))


def example(name: str) -> list[str]:
    """The words of a command's example, on the task of the test's project."""
    line = str(COMMANDS[name].epilog)
    assert line.startswith(f"Example: optimize {name}"), (name, line)
    return shlex.split(line.removeprefix("Example: optimize ").replace("tickets", "review"))


def test_these_are_all_the_commands() -> None:
    assert len(COMMANDS) >= 24 and set(COMMANDS) > RUN


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_one_that_the_command_takes(name: str) -> None:
    words, command = example(name), COMMANDS[name]
    command.make_context(name, words[len(name.split()) :])  # raises what a user would be told


@pytest.mark.parametrize("name", sorted(RUN))
def test_the_examples_that_look_are_run(
    name: str, reviewed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reviewed)
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, example(name))
    assert done.exit_code in (0, 1) and done.stdout.strip(), done.stderr
    # a path is longer than a line may be, and stays whole
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "/" not in line)


@pytest.mark.parametrize("name", ["init", "new"])
def test_the_examples_that_write_are_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, example(name))
    assert done.exit_code == 0 and "Next:" in done.stdout, done.stderr
    assert list(tmp_path.rglob("*.py"))

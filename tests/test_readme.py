"""The README is executable: every command and option it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from optimize.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPANS = re.findall(r"`(optimize [^`]+)`", README)
LINES = re.findall(r"^(optimize [^#\n]+)", README, re.MULTILINE)
KNOWN = typer.main.get_group(app).commands


@pytest.mark.parametrize("said", sorted({*SPANS, *LINES}))
def test_every_command_and_option_of_the_readme_exists(said: str) -> None:
    _, name, *words = said.split()
    if name.startswith("--"):
        assert name == "--install-completion"
        return
    command = KNOWN[name]
    if name == "lm":
        command = command.commands[words[0]]
    options = {option for param in command.params for option in param.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_every_command_is_in_the_readme() -> None:
    assert len(KNOWN) >= 8
    for command in KNOWN:
        assert f"optimize {command}" in README, command


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_documents_link_to_files_that_exist() -> None:
    for link in re.findall(r"\]\(([a-zA-Z][^):]*)\)", README):
        assert (ROOT / link).exists(), link

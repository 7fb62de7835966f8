"""The README is executable: every command and option it names exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from optimize.cli import app
from tests.test_cli import optimize

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
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
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.lm
def test_the_demo_has_calls_for_every_lever() -> None:
    """A cap that a lever lacks calls under ends the demo before anything is tuned."""
    flags = re.search(r"optimize run (order_slip .*?)\|\|", MAKEFILE.replace("\\\n", ""))
    assert flags
    told = optimize(ROOT, "check", *flags[1].split(), "--json")
    plan = json.loads(told.stdout)["cost"]["plan"]
    assert plan["enough"] <= plan["allowed"], told.stderr


def test_the_documents_link_to_files_that_exist() -> None:
    for link in re.findall(r"\]\(([a-zA-Z][^):]*)\)", README):
        assert (ROOT / link).exists(), link
